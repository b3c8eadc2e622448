//! Templates and what they must render, each held against Docker's own answer where a Docker client of at least version 28 is
//! installed: `docker context inspect` needs no daemon, and a context may hold any data.

use rrt_template::{Options, Template};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// The data is at `.Metadata.Metadata.AdditionalFields`, because that is where a context has it.
const AT: &str = "{{with .Metadata.Metadata.AdditionalFields}}";

fn data() -> Value {
    json!({
        "S": "héllo <b>&'\"", "T": "two words", "Empty": "", "N": 3, "Neg": -7, "F": 1.5, "Big": 1e21, "Small": 0.00001, "Z": null,
        "L": ["a", "b", "c"], "E": [], "M": {"k1": "v1", "a": [1.5, null, true], "k0": "v0"}, "B": true, "D": {"S": "in"},
        "Id": "sha256:0123456789abcdef", "Mixed": ["x", 1.5]
    })
}

/// Inside of [`AT`], and what comes out; an error is what comes after `at `. Numbers of a context's data are floats in Docker.
const CASES: &[(&str, &str)] = &[
    // Values.
    ("{{.S}}", "héllo <b>&'\""),
    ("{{.F}} {{.Big}} {{.Small}} {{.B}}", "1.5 1e+21 1e-05 true"),
    ("{{.Z}}|{{.Missing}}|{{.Empty}}|", "<no value>|<no value>||"),
    ("{{.L}} {{.E}} {{.M}}", "[a b c] [] map[a:[1.5 <nil> true] k0:v0 k1:v1]"),
    (
        "{{json .L}} {{json .M}} {{json .Z}} {{json .S}}",
        "[\"a\",\"b\",\"c\"] {\"a\":[1.5,null,true],\"k0\":\"v0\",\"k1\":\"v1\"} null \"héllo <b>&'\\\"\"",
    ),
    ("{{.D.S}} {{.M.k1}}", "in v1"),
    (
        "{{1}} {{-2}} {{0x1F}} {{1_000}} {{0b11}} {{017}} {{1.50}} {{'a'}} {{true}} {{1e3}} {{`r\\aw`}}",
        "1 -2 31 1000 3 15 1.5 97 true 1000 r\\aw",
    ),
    (r#"{{"q\"\n\t\x41\u00e9\101"}}"#, "q\"\n\tAéA"),
    // Trim markers and comments.
    ("a  {{- .T -}}  b {{/* c */}} d {{- /* c */ -}} e", "atwo wordsb  de"),
    ("{{ .T }}\n{{- if .B }}\n x\n{{- end }}", "two words\n x"),
    // Control.
    ("{{if .E}}1{{else if .B}}2{{else}}3{{end}}", "2"),
    ("{{if .Missing}}1{{else}}2{{end}}{{if .F}}3{{end}}{{if .M}}4{{end}}{{if .Empty}}5{{end}}", "234"),
    ("{{range .L}}<{{.}}>{{else}}none{{end}}{{range .E}}x{{else}}none{{end}}", "<a><b><c>none"),
    ("{{range $i, $v := .L}}{{if $i}},{{end}}{{$i}}{{$v}}{{end}}", "0a,1b,2c"),
    ("{{range $v := .L}}{{$v}}{{end}}{{range $k, $v := .D}}{{$k}}={{$v}}{{end}}", "abcS=in"),
    ("{{range $k, $v := .M}}{{$k}} {{end}}{{range .Missing}}x{{else}}e{{end}}", "a k0 k1 e"),
    ("{{range .L}}{{if eq . \"b\"}}{{continue}}{{end}}{{.}}{{if eq . \"c\"}}{{break}}{{end}}{{end}}", "ac"),
    ("{{with .D}}{{.S}}{{end}}{{with .E}}x{{else}}y{{end}}{{with $x := .T}}{{$x}}{{end}}", "inytwo words"),
    ("{{with .E}}x{{else with .D}}{{.S}}{{end}}", "in"),
    ("{{$x := .T}}{{if true}}{{$x = \"new\"}}{{$x}}{{end}}{{$x}}{{with $.Name}}{{.}}{{end}}", "newnewx"),
    ("{{range 3}}{{.}}{{end}}", "012"),
    // Functions.
    ("{{.T | upper}} {{upper .T | lower | title}} {{.T | printf \"%s-%s\" \"x\"}}", "TWO WORDS Two Words x-two words"),
    ("{{title \"a-b c_d e'f\"}}", "A-B C_d E'F"),
    ("{{join (split .T \" \") \",\"}} {{split \"abc\" \"\"}} {{len (split \"\" \",\")}}", "two,words [a b c] 1"),
    ("{{truncate .Id 12}}|{{truncate \"ab\" 5}}|{{pad \"x\" 1 2}}|{{pad \"\" 1 2}}|", "sha256:01234|ab| x  ||"),
    (
        "{{index .L 1}} {{index .M \"k1\"}} {{index .M \"a\" 0}} {{index .M \"none\"}} {{index .T 0}}",
        "b v1 1.5 <no value> 116",
    ),
    ("{{slice .Id 7 19}} {{slice .L 1}} {{slice .L 0 2}} {{slice .T}}", "0123456789ab [b c] [a b] two words"),
    ("{{.T | }}", "two words"),
    ("{{len .L}} {{len .M}} {{len .T}} {{len .E}}", "3 3 9 0"),
    ("{{print 1 2 \"a\" \"b\" 3 nil}}|{{println 1 \"a\"}}|{{print}}|", "1 2ab3 <nil>|1 a\n||"),
    (
        "{{html .S}} {{js .S}} {{urlquery .S}}",
        "héllo &lt;b&gt;&amp;&#39;&#34; héllo \\u003Cb\\u003E\\u0026\\'\\\" h%C3%A9llo+%3Cb%3E%26%27%22",
    ),
    (
        "{{and 1 0 2}} {{or 0 \"\" 3}} {{or 0 \"\"}}| {{not 1}} {{and .B (not .Z)}} {{or .Missing \"d\"}}",
        "0 3 | false true d",
    ),
    (
        "{{eq 1 1}} {{eq 1 2 1}} {{ne \"a\" \"b\"}} {{lt 1 2}} {{le 2 2}} {{gt \"b\" \"a\"}} {{ge 1.5 .F}} {{eq .T \"two words\"}}",
        "true true true true true true true true",
    ),
    ("{{(index .L 0) | upper}} {{(.D).S}} {{if and .B (gt (len .L) 2)}}y{{end}}", "A in y"),
    // printf.
    (
        "{{printf \"%d|%5d|%-5d|%05d|%+d|%x|%X|%#x|%o|%b|%c|%q|%U|%v\" 42 42 42 42 42 255 255 255 8 5 97 97 97 7}}",
        "42|   42|42   |00042|+42|ff|FF|0xff|10|101|a|'a'|U+0061|7",
    ),
    (
        "{{printf \"%s|%10s|%-10s|%.2s|%q|%x|%v|%t\" .T \"r\" \"l\" \"cut\" \"q\\\"\" \"hex\" .L .B}}",
        "two words|         r|l         |cu|\"q\\\"\"|686578|[a b c]|true",
    ),
    (
        "{{printf \"%f|%.2f|%8.3f|%e|%g|%v|%.3g|%G\" .F 3.14159 2.5 12345.678 1e21 0.1 1234.5678 1e-7}}",
        "1.500000|3.14|   2.500|1.234568e+04|1e+21|0.1|1.23e+03|1E-07",
    ),
    ("{{printf \"%d %s %d\" \"x\" 5}}", "%!d(string=x) %!s(int=5) %!d(MISSING)"),
    (
        "{{printf \"%s\" \"a\" 1 \"b\"}}|{{printf \"100%\"}}|{{printf \"%%\"}}|{{printf \"%*d\" 5 1}}|{{printf \"%s\" .L}}",
        "a%!(EXTRA int=1, string=b)|100%!(NOVERB)|%|    1|[a b c]",
    ),
    (
        "{{printf \"%T %T %T %T\" 1 \"s\" .L .F}} {{printf \"%v %s\" nil nil}}",
        "int string []interface {} float64 <nil> %!s(<nil>)",
    ),
    ("{{printf \"%5t|%-7v|%07.2f|% d|%x\" true .L -1.5 3 \"é\"}}", " true|[a       b       c      ]|-001.50| 3|c3a9"),
    // Templates.
    ("{{template \"t\" .D}}{{template \"t\" .}}", "[in][héllo <b>&'\"]"),
    // Errors of execution.
    ("{{.S.X}}", "<.S.X>: can't evaluate field X in type interface {}"),
    ("{{.Z.X}}", "<.Z.X>: nil pointer evaluating interface {}.X"),
    ("{{.Missing.X}}", "<no value>"),
    ("{{index .L 3}}", "<index .L 3>: error calling index: reflect: slice index out of range"),
    ("{{index .L 7}}", "<index .L 7>: error calling index: index out of range: 7"),
    ("{{index .L \"a\"}}", "<index .L \"a\">: error calling index: cannot index slice/array with type string"),
    ("{{index .M 1}}", "<index .M 1>: error calling index: value has type int; should be string"),
    ("{{index .Z 1}}", "<index .Z 1>: error calling index: index of untyped nil"),
    ("{{slice .T 3 2}}", "<slice .T 3 2>: error calling slice: invalid slice index: 3 > 2"),
    ("{{len 3}}", "<len 3>: error calling len: len of type int"),
    ("{{eq 1 \"a\"}}", "<eq 1 \"a\">: error calling eq: incompatible types for comparison"),
    ("{{eq 1}}", "<eq 1>: error calling eq: missing argument for comparison"),
    ("{{lt true false}}", "<lt true false>: error calling lt: invalid type for comparison"),
    ("{{lower 3}}", "<3>: expected string; found 3"),
    ("{{lower .F}}", "<.F>: wrong type for value; expected string; got float64"),
    ("{{lower}}", "<lower>: wrong number of args for lower: want 1 got 0"),
    ("{{printf}}", "<printf>: wrong number of args for printf: want at least 1 got 0"),
    ("{{join .L \",\"}}", "<.L>: wrong type for value; expected []string; got []interface {}"),
    ("{{\"a\" \"b\"}}", "<\"a\">: can't give argument to non-function \"a\""),
    ("{{.T 1}}", "<.T>: T is not a method but has arguments"),
    ("{{nil}}", "<nil>: nil is not a command"),
    ("{{range .S}}{{end}}", "<.S>: range can't iterate over héllo <b>&'\""),
    ("{{template \"none\"}}", "<{{template \"none\"}}>: template \"none\" not defined"),
    (
        "{{index .M \"k1\" \"something long\"}}",
        "<index .M \"k1\" \"something long\">: error calling index: cannot index slice/array with type string",
    ),
];

/// Whole templates that can't be parsed, and what follows `template: :`.
const INVALID: &[(&str, &str)] = &[
    ("{{", "1: unclosed action"),
    ("a\n{{.X", "2: unclosed action"),
    ("{{end}}", "1: unexpected {{end}}"),
    ("{{else}}", "1: unexpected {{else}}"),
    ("{{if .X}}", "1: unexpected EOF"),
    ("{{if}}x{{end}}", "1: missing value for if"),
    ("{{}}", "1: missing value for command"),
    ("{{nope .X}}", "1: function \"nope\" not defined"),
    ("{{$x}}", "1: undefined variable \"$x\""),
    ("{{.X | 3}}", "1: non executable command in pipeline stage 2"),
    ("{{\"abc}}", "1: unterminated quoted string"),
    ("{{`abc}}", "1: unterminated raw quoted string"),
    ("{{(.X}}", "1: unclosed left paren"),
    ("{{.X)}}", "1: unexpected right paren"),
    ("{{.X@}}", "1: bad character U+0040 '@'"),
    ("{{@}}", "1: unexpected \"@\" in command"),
    ("{{ü§}}", "1: bad character U+00A7 '§'"),
    ("{{1x}}", "1: bad number syntax: \"1x\""),
    ("{{/* x}}", "1: unclosed comment"),
    ("{{/* x */ y}}", "1: comment ends before closing delimiter"),
    ("{{if .X}}{{else}}{{else}}{{end}}", "1: expected end; found {{else}}"),
    ("{{if .X}}{{else range .Y}}{{end}}", "1: unexpected <range> in else"),
    ("{{break}}", "1: {{break}} outside {{range}}"),
    ("{{range $a, $b, $c := .X}}{{end}}", "1: too many declarations in range"),
    ("{{$a, $b := .X}}", "1: too many declarations in command"),
    ("{{3.X}}", "1: bad number syntax: \"3.X\""),
    ("{{true.X}}", "1: unexpected . after term \"true\""),
    ("{{: .X}}", "1: expected :="),
    ("{{template x}}", "1: unexpected \"x\" in template clause"),
    ("{{.X}}{{define \"d\"}}", "1: unexpected EOF"),
    ("{{if .X}}{{define \"d\"}}{{end}}{{end}}", "1: unexpected <define> in command"),
];

fn whole(inner: &str) -> String {
    format!("{{{{define \"t\"}}}}[{{{{.S}}}}]{{{{end}}}}{AT}{inner}{{{{end}}}}")
}

fn ours(template: &str) -> Result<String, String> {
    let data = json!({"Name": "x", "Metadata": {"Metadata": {"AdditionalFields": data()}}});
    let template = Template::parse(template).map_err(|e| e.to_string())?;
    template.render(&data, &Options::default()).map_err(|e| e.to_string())
}

/// What follows `at ` in an error of execution, without the position.
fn at(message: &str) -> &str {
    message.split_once(" at ").map_or(message, |(_, rest)| rest)
}

/// Every difference at once says more than the first.
fn none_differs(differences: &[String]) {
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

fn compare(differences: &mut Vec<String>, template: &str, found: &str, expected: &str) {
    if found != expected {
        differences.push(format!("{template}\n     found: {found}\n  expected: {expected}"));
    }
}

#[test]
fn templates_render_what_is_expected() {
    let mut differences = Vec::new();
    for (inner, expected) in CASES {
        match ours(&whole(inner)) {
            // A list of strings is taken for []string, because JSON has no other.
            Ok(out) if inner.contains("join .L") => compare(&mut differences, inner, &out, "a,b,c"),
            Ok(out) => compare(&mut differences, inner, &out, expected),
            Err(message) => compare(&mut differences, inner, at(&message), expected),
        }
    }
    none_differs(&differences);
}

#[test]
fn invalid_templates_say_why() {
    let mut differences = Vec::new();
    for (template, expected) in INVALID {
        let message = ours(template).unwrap_or_else(|message| message);
        compare(&mut differences, template, &message, &format!("template: :{expected}"));
    }
    none_differs(&differences);
}

/// A context of Docker's with our data, in a directory that goes with the value.
struct Context(std::path::PathBuf);

impl Context {
    /// `None`, with the reason printed, without a Docker client that knows what ours knows.
    fn make() -> Option<Context> {
        let version = Command::new("docker").arg("--version").output().ok();
        let text = version.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        let major = text.strip_prefix("Docker version ").and_then(|v| v.split('.').next()?.parse::<u32>().ok());
        if major.is_none_or(|major| major < 28) {
            println!("not compared with Docker: no docker client of version 28 or later ({text:?})");
            return None;
        }
        let config = std::env::temp_dir().join(format!("rrt-template-{}", std::process::id()));
        // The SHA-256 of the name, "x".
        let meta = config.join("contexts/meta/2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881");
        std::fs::create_dir_all(&meta).expect("a directory");
        let context = json!({"Name": "x", "Metadata": data(), "Endpoints": {"docker": {"Host": "unix:///none"}}});
        std::fs::write(Path::new(&meta).join("meta.json"), context.to_string()).expect("a context");
        Some(Context(config))
    }

    fn render(&self, template: &str) -> Result<String, String> {
        let arguments = ["--config".as_ref(), self.0.as_os_str(), "context".as_ref(), "inspect".as_ref(), "x".as_ref()];
        let docker = Command::new("docker").args(arguments).args(["--format", template]).output().expect("docker runs");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        match docker.status.success() {
            // The client adds a line feed after each object.
            true => Ok(text(&docker.stdout).strip_suffix('\n').expect("a line").to_owned()),
            false => {
                let message = text(&docker.stderr);
                let message = message.trim().strip_prefix("template parsing error: ").unwrap_or(message.trim());
                Err(message.to_owned())
            }
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn docker_says_the_same() {
    let Some(docker) = Context::make() else { return };
    let mut differences = Vec::new();
    for (inner, expected) in CASES {
        match docker.render(&whole(inner)) {
            Ok(out) => compare(&mut differences, inner, &out, expected),
            Err(message) => {
                compare(&mut differences, inner, at(&message), expected);
                if !inner.contains("join .L") {
                    let ours = ours(&whole(inner)).unwrap_or_else(|message| message);
                    compare(&mut differences, inner, &message, &ours);
                }
            }
        }
    }
    for (template, expected) in INVALID {
        let message = docker.render(template).unwrap_or_else(|message| message);
        compare(&mut differences, template, &message, &format!("template: :{expected}"));
    }
    none_differs(&differences);
}
