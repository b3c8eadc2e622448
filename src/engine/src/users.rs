//! `USER` and `--user`: `user[:group]`, by the image's `/etc/passwd` and `/etc/group` (passwd(5), group(5)).

use crate::Error;

/// Who the process is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// The user's other groups, then those of `--group-add`; each once.
    pub groups: Vec<u32>,
    /// The home directory, for `HOME`; `/` when passwd says none.
    pub home: String,
}

/// Finds `user` in the texts of the image's passwd and group files, which are empty when the image has none. As Docker: numbers
/// need no entry; a user alone has the groups that name him; with a group given he has only that.
///
/// # Errors
/// A name that the files don't have, a number that is no id.
pub fn find(user: &str, more: &[String], passwd: &str, group: &str) -> Result<User, Error> {
    let (name, group_name) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
    let name = if name.is_empty() { "0" } else { name };
    let entry = passwd
        .lines()
        .map(fields)
        .find(|e| e.first() == Some(&name) || (id(name).is_some() && e.get(2) == Some(&name)));
    let field = |at: usize| entry.as_ref().and_then(|e| e.get(at).copied());
    let uid = match field(2).and_then(id).or_else(|| id(name)) {
        Some(uid) => uid,
        None if name.bytes().all(|b| b.is_ascii_digit()) => {
            return Err(Error::invalid("--user", user, "a user id is from 0 to 2147483647"));
        }
        None => return Err(Error::User(name.to_owned())),
    };
    let group_id = |name: &str| {
        let entry =
            group.lines().map(fields).find(|e| e.first() == Some(&name)).and_then(|e| e.get(2).copied().and_then(id));
        entry.or_else(|| id(name)).ok_or_else(|| Error::Group(name.to_owned()))
    };
    let mut found =
        User { uid, gid: 0, groups: Vec::new(), home: field(5).filter(|h| !h.is_empty()).unwrap_or("/").to_owned() };
    match group_name.filter(|g| !g.is_empty()) {
        Some(name) => found.gid = group_id(name)?,
        None => {
            found.gid = field(3).and_then(id).unwrap_or(0);
            let known = field(0).unwrap_or(name);
            let member = |e: &Vec<&str>| e.get(3).is_some_and(|list| list.split(',').any(|m| m == known));
            let of = group.lines().map(fields).filter(member).filter_map(|e| e.get(2).copied().and_then(id));
            found.groups.extend(of);
        }
    }
    for name in more {
        found.groups.push(group_id(name)?);
    }
    let mut seen = Vec::new();
    found.groups.retain(|g| {
        !seen.contains(g) && {
            seen.push(*g);
            true
        }
    });
    Ok(found)
}

fn fields(line: &str) -> Vec<&str> {
    line.split(':').map(str::trim).collect()
}

/// An id as Docker takes it: up to 2^31 - 1.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|n| *n <= i32::MAX as u32 && text.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\nodd:x:7\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\naudio:x:29:web,odd\nplugdev:x:46:web\n";

    fn of(user: &str) -> (u32, u32, Vec<u32>, String) {
        let found = find(user, &[], PASSWD, GROUP).unwrap();
        (found.uid, found.gid, found.groups, found.home)
    }

    #[test]
    fn users() {
        assert_eq!(of(""), (0, 0, vec![], "/root".to_owned()));
        assert_eq!(of("web"), (33, 33, vec![29, 46], "/srv".to_owned()));
        assert_eq!(of("33"), (33, 33, vec![29, 46], "/srv".to_owned()));
        assert_eq!(of("web:audio"), (33, 29, vec![], "/srv".to_owned()));
        assert_eq!(of("1000:1000"), (1000, 1000, vec![], "/".to_owned()));
        assert_eq!(of("1000"), (1000, 0, vec![], "/".to_owned()));
        assert_eq!(of("odd"), (7, 0, vec![29], "/".to_owned()));
        assert_eq!(of(":audio"), (0, 29, vec![], "/root".to_owned()));
        let added = find("web", &["audio".to_owned(), "99".to_owned()], PASSWD, GROUP).unwrap();
        assert_eq!(added.groups, [29, 46, 99]);
    }

    #[test]
    fn unknown_ones() {
        let error = |user: &str| find(user, &[], PASSWD, GROUP).unwrap_err().to_string();
        assert!(error("nope").contains("unable to find user nope: no matching entries in passwd file"));
        assert!(error("0:nope").contains("unable to find group nope: no matching entries in group file"));
        assert!(error("4294967296").contains("0 to 2147483647"));
    }
}
