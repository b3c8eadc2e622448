//! crun's annotation `run.oci.seccomp_bpf_data`: a seccomp program as the kernel reads it, in base64, in place of `linux.seccomp`.
//!
//! It is for programs that a profile cannot express. Whether it is a valid one the kernel says when it is loaded; whether it
//! confines anything is for whoever wrote it, so `features` names the annotation as unsafe to take from others.

use crate::annotations::property;
use crate::error::{Result, config};
use crate::seccomp::SeccompPlan;
use std::collections::BTreeMap;

/// The annotation.
pub const ANNOTATION: &str = "run.oci.seccomp_bpf_data";

/// Plans the annotation's program, if there is one. It is loaded without flags, and has no listener.
///
/// # Errors
/// [`crate::Error::Config`]: not base64, or not whole instructions of at most 4096.
pub fn plan(annotations: &BTreeMap<String, String>) -> Result<Option<SeccompPlan>> {
    let Some(text) = annotations.get(ANNOTATION) else { return Ok(None) };
    let program = decoded(text).ok_or_else(|| {
        config(property(ANNOTATION), "is not base64 (RFC 4648, with padding): encode the program again")
    })?;
    let size = rrt_sys::seccomp::INSTRUCTION;
    if program.is_empty() || program.len() % size != 0 || program.len() / size > rrt_seccomp::MOST_INSTRUCTIONS {
        let problem = format!(
            "{} bytes are no seccomp program: it has 1 to {} instructions (struct sock_filter) of {size} bytes",
            program.len(),
            rrt_seccomp::MOST_INSTRUCTIONS,
        );
        return Err(config(property(ANNOTATION), problem));
    }
    let summary = format!("{} BPF instructions of {ANNOTATION}", program.len() / size);
    Ok(Some(SeccompPlan { program, flags: 0, agent: None, courier: false, summary }))
}

/// RFC 4648 section 4; white space between is skipped, since encoders break lines.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let symbols: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let mut out = Vec::with_capacity(symbols.len() / 4 * 3);
    let groups = symbols.len() / 4;
    for (n, group) in symbols.chunks(4).enumerate() {
        let padding = group.iter().rev().take_while(|&&b| b == b'=').count();
        if group.len() != 4 || padding > 2 || (padding > 0 && n + 1 != groups) {
            return None;
        }
        let mut bits = 0u32;
        for &symbol in &group[..4 - padding] {
            bits = bits << 6 | u32::from(value(symbol)?);
        }
        let [_, bytes @ ..] = (bits << (6 * padding)).to_be_bytes();
        out.extend_from_slice(&bytes[..3 - padding]);
    }
    Some(out)
}

fn value(symbol: u8) -> Option<u8> {
    match symbol {
        b'A'..=b'Z' => Some(symbol - b'A'),
        b'a'..=b'z' => Some(symbol - b'a' + 26),
        b'0'..=b'9' => Some(symbol - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_rfc_4648() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9v\nYmE=\n", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decoded(text).unwrap(), bytes.as_bytes(), "{text}");
        }
        assert_eq!(decoded("+/A=").unwrap(), [0xfb, 0xf0]);
        for bad in ["Z", "Zm9", "Zg==Zg==", "Z===", "====", "Zm9!", "-_A="] {
            assert_eq!(decoded(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_whole_instructions_are_a_program() {
        let of = |text: &str| plan(&BTreeMap::from([(ANNOTATION.to_owned(), text.to_owned())]));
        assert_eq!(plan(&BTreeMap::new()).unwrap(), None);
        // ret SECCOMP_RET_ALLOW
        let program = of("BgAAAAAA/38=").unwrap().unwrap();
        assert_eq!(program.program, [6, 0, 0, 0, 0, 0, 0xff, 0x7f]);
        for bad in ["", "AAAA", "?", &"BgAAAAAA/38G".repeat(4097)] {
            let error = of(bad).unwrap_err().to_string();
            assert!(error.starts_with(r#"annotations["run.oci.seccomp_bpf_data"]: "#), "{error}");
        }
    }
}
