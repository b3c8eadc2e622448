//! POSIX extended regular expressions by the C library: `delete --regex` and `kill --regex` are not worth 1.4 MB of a
//! regex crate (models.md 3.9).

use std::ffi::CString;
use std::mem::MaybeUninit;

/// A compiled expression, matched anywhere in a text unless it says `^` and `$`.
pub struct Regex {
    // Boxed: musl's and glibc's regfree take the address regcomp was given, so the value does not move.
    compiled: Box<libc::regex_t>,
}

impl Regex {
    /// Compiles `pattern` as regcomp(3) does with `REG_EXTENDED | REG_NOSUB`.
    ///
    /// # Errors
    /// The C library's text of what is wrong with the pattern.
    pub fn new(pattern: &str) -> Result<Regex, String> {
        let text = CString::new(pattern).map_err(|_| "contains a NUL byte".to_owned())?;
        let mut compiled = Box::new(MaybeUninit::<libc::regex_t>::zeroed());
        // SAFETY: both pointers are valid for the call, `text` ends in NUL. regcomp(3)
        let code = unsafe { libc::regcomp(compiled.as_mut_ptr(), text.as_ptr(), libc::REG_EXTENDED | libc::REG_NOSUB) };
        // SAFETY: every field of regex_t is an integer or a raw pointer, for which zeroes are valid; regcomp only adds.
        let compiled = unsafe { compiled.assume_init() };
        if code != 0 {
            return Err(describe(code, &compiled));
        }
        Ok(Regex { compiled })
    }

    /// Whether the expression matches somewhere in `text`. A text with a NUL byte never matches.
    pub fn is_match(&self, text: &str) -> bool {
        let Ok(text) = CString::new(text) else { return false };
        // SAFETY: `compiled` comes from a successful regcomp; with nmatch 0 the array may be null. regexec(3)
        unsafe { libc::regexec(&raw const *self.compiled, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: `compiled` comes from a successful regcomp and is freed once. regfree(3)
        unsafe { libc::regfree(&raw mut *self.compiled) }
    }
}

fn describe(code: libc::c_int, compiled: &libc::regex_t) -> String {
    let mut text = [0u8; 128];
    // SAFETY: the buffer's length is given; the function ends the text with NUL, cutting it if it must. regerror(3)
    unsafe { libc::regerror(code, compiled, text.as_mut_ptr().cast(), text.len()) };
    let end = text.iter().position(|&b| b == 0).unwrap_or(text.len());
    String::from_utf8_lossy(&text[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_anywhere_unless_anchored() {
        let part = Regex::new("eb-[0-9]+").unwrap();
        assert!(part.is_match("web-12"));
        assert!(!part.is_match("web-x"));
        let whole = Regex::new("^(web|db)-[0-9]$").unwrap();
        assert!(whole.is_match("db-1"));
        assert!(!whole.is_match("db-12"));
    }

    #[test]
    fn a_broken_pattern_is_an_error_with_a_text() {
        assert!(!Regex::new("(").err().unwrap().is_empty());
        assert!(Regex::new("a\0b").is_err());
    }

    #[test]
    fn a_nul_byte_in_the_text_does_not_match() {
        assert!(!Regex::new("a").unwrap().is_match("a\0"));
    }
}
