//! Changes of a JSON document that keep most of it a config.json, so that an input reaches the code behind the parser.

use serde_json::{Map, Value};

/// A small deterministic generator (xorshift64*), so that a failing case is the same on every machine.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number from 0 to `n - 1`; 0 for an `n` of 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n.max(1)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Text that has broken a runtime before, or could: paths that climb, separators, bytes that end a C string or a line.
const TEXTS: [&str; 34] = [
    "",
    "/",
    ".",
    "..",
    "../..",
    "/..",
    "/../../etc",
    "a/../../b",
    "//a//b/",
    "/proc/self/fd/7",
    "\0",
    "a\0b",
    "\n",
    "a\nb: c",
    "\u{1b}[2J",
    "é",
    "\u{fffd}",
    "-1",
    "0",
    "max",
    "bind",
    "rbind",
    "ro",
    "tmpcopyup",
    "idmap",
    "remount",
    "cgroup",
    "net/../kernel/core_pattern",
    "net.//.kernel.panic",
    "kernel.hostname",
    "NAME=",
    "=",
    "SELF",
    "CAP_SYS_ADMIN",
];

const INTEGERS: [i64; 16] = [
    0,
    1,
    -1,
    2,
    -2,
    7,
    1000,
    -1000,
    65_535,
    65_536,
    u32::MAX as i64,
    u32::MAX as i64 + 1,
    i32::MIN as i64,
    i64::MAX,
    i64::MIN,
    i64::MAX - 1,
];

/// Changes `document` in one to four places; `donors` are other documents, whose parts may be put into it.
pub fn mutate(document: &mut Value, donors: &[Value], random: &mut Random) {
    let changes = if random.one_in(3) { 2 + random.below(3) } else { 1 };
    for _ in 0..changes {
        if random.one_in(4) && !donors.is_empty() {
            graft(document, random.pick(donors), random);
        } else if random.one_in(8) {
            rename_in_map(document, random);
        } else {
            change(somewhere(document, random), random);
        }
    }
}

/// Breaks a text in one place, so that it is hardly JSON any more.
pub fn damage(text: &mut Vec<u8>, random: &mut Random) {
    let place = random.below(text.len());
    match random.below(3) {
        0 => text.truncate(place),
        1 => text.insert(place, random.below(256) as u8),
        _ => text.iter_mut().skip(place).take(1).for_each(|byte| *byte = b"\"\\{}[],:\n0\xff"[random.below(11)]),
    }
}

/// Some value of a document, found by walking down from the top, so that a part with few values is as likely as one with
/// many. The document itself is left alone.
fn somewhere<'a>(value: &'a mut Value, random: &mut Random) -> &'a mut Value {
    let children = match value {
        Value::Array(items) => items.len(),
        Value::Object(members) => members.len(),
        _ => 0,
    };
    if children == 0 {
        return value;
    }
    let chosen = random.below(children);
    let child = match value {
        Value::Array(items) => &mut items[chosen],
        Value::Object(members) => members.values_mut().nth(chosen).expect("below the length"),
        childless => return childless,
    };
    if random.one_in(4) { child } else { somewhere(child, random) }
}

/// Gives a member of an open map (sysctl, unified, annotations) another name. Their keys have separators in them, which no
/// property has, and what they may be is for the runtime to decide, not for the parser.
fn rename_in_map(document: &mut Value, random: &mut Random) {
    let mut maps = Vec::new();
    open_maps(document, &mut maps);
    if maps.is_empty() {
        return;
    }
    let chosen = random.below(maps.len());
    let map = &mut maps[chosen];
    let key = map.keys().nth(random.below(map.len())).expect("below the length").clone();
    if let Some(value) = map.remove(&key) {
        map.insert(text(&key, random), value);
    }
}

fn open_maps<'a>(value: &'a mut Value, found: &mut Vec<&'a mut Map<String, Value>>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| open_maps(item, found)),
        Value::Object(members) => {
            if members.keys().any(|key| key.contains(['.', '/'])) {
                found.push(members);
            } else {
                members.values_mut().for_each(|member| open_maps(member, found));
            }
        }
        _ => {}
    }
}

/// Puts a part of another document into the same place of this one: at each level into a member of the donor's.
fn graft(target: &mut Value, donor: &Value, random: &mut Random) {
    match (target, donor) {
        (Value::Object(into), Value::Object(from)) if !from.is_empty() => {
            let (key, part) = from.iter().nth(random.below(from.len())).expect("below the length");
            match into.get_mut(key) {
                Some(present) if !random.one_in(3) => graft(present, part, random),
                _ => drop(into.insert(key.clone(), part.clone())),
            }
        }
        (Value::Array(into), Value::Array(from)) if !from.is_empty() => {
            let place = random.below(into.len() + 1);
            into.insert(place, random.pick(from).clone());
        }
        (target, donor) => *target = donor.clone(),
    }
}

fn change(value: &mut Value, random: &mut Random) {
    if random.one_in(12) {
        *value = any(random);
        return;
    }
    match value {
        Value::Null => *value = any(random),
        Value::Bool(b) => *b = !*b,
        Value::Number(n) => {
            let near = n.as_i64().unwrap_or(0).wrapping_add(random.below(3) as i64 - 1);
            *value = if random.one_in(4) { near.into() } else { number(random) };
        }
        Value::String(s) => *s = text(s, random),
        Value::Array(items) => change_array(items, random),
        Value::Object(members) => change_object(members, random),
    }
}

fn number(random: &mut Random) -> Value {
    match random.below(8) {
        0 => u64::MAX.into(),
        1 => (1u64 << random.below(64)).into(),
        2 => 1e300.into(),
        3 => 0.5.into(),
        _ => (*random.pick(&INTEGERS)).into(),
    }
}

fn any(random: &mut Random) -> Value {
    match random.below(6) {
        0 => Value::Null,
        1 => Value::Bool(random.one_in(2)),
        2 => number(random),
        3 => Value::Array(Vec::new()),
        4 => Value::Object(Map::new()),
        _ => Value::String((*random.pick(&TEXTS)).into()),
    }
}

fn text(old: &str, random: &mut Random) -> String {
    let special = *random.pick(&TEXTS);
    if old.contains(['.', '/']) && random.one_in(3) {
        return other_separator(old, random);
    }
    let mut chars: Vec<char> = old.chars().collect();
    let place = random.below(chars.len() + 1);
    match random.below(7) {
        0 | 1 => special.into(),
        2 => format!("{old}{special}"),
        3 => format!("{special}{old}"),
        4 => old.repeat(1 + random.below(40)),
        5 => {
            chars.splice(place..place, special.chars());
            chars.into_iter().collect()
        }
        _ => {
            chars.truncate(place);
            chars.into_iter().collect()
        }
    }
}

/// Another separator in the place of one, or of all: paths and sysctls have them.
fn other_separator(old: &str, random: &mut Random) -> String {
    let new = *random.pick(&["/", ".", "/../", ".//.", ":", ""]);
    let places: Vec<usize> = old.match_indices(['.', '/']).map(|(i, _)| i).collect();
    if places.is_empty() || random.one_in(4) {
        return old.replace(['.', '/'], new);
    }
    let place = *random.pick(&places);
    format!("{}{new}{}", &old[..place], &old[place + 1..])
}

fn change_array(items: &mut Vec<Value>, random: &mut Random) {
    if items.is_empty() {
        items.push(any(random));
        return;
    }
    let (one, other) = (random.below(items.len()), random.below(items.len()));
    match random.below(5) {
        0 => drop(items.remove(one)),
        1 => items.insert(other, items[one].clone()),
        2 => items.swap(one, other),
        3 => {
            let copies = 1 + random.below(60);
            items.extend(vec![items[one].clone(); copies]);
        }
        _ => items.truncate(one),
    }
}

fn change_object(members: &mut Map<String, Value>, random: &mut Random) {
    let keys: Vec<String> = members.keys().cloned().collect();
    if keys.is_empty() || random.one_in(6) {
        members.insert((*random.pick(&TEXTS)).into(), any(random));
        return;
    }
    let value = members.remove(random.pick(&keys)).unwrap_or_default();
    match random.below(4) {
        0 | 1 => {}
        2 => drop(members.insert(random.pick(&keys).clone(), value)),
        _ => members.clear(),
    }
}
