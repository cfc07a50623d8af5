//! Where a secret begins and ends, of which a pattern only needs to see enough to be sure.

use std::ops::Range;

use super::formats::{CONNECTION_STRING, GENERIC_SECRET, PRIVATE_KEY, PRIVATE_KEY_END};

/// Longest secret in bytes: a private RSA key of 16384 bits in PEM is 13 KiB.
const SECRET_BYTES_MAX: usize = 16 << 10;

/// How a private key ends.
const LAST_LINE: &str = "-----END ";
const DASHES: &str = "-----";

/// The whole secret, of which `sure` was matched by the rule; None: it is not all there.
pub(super) fn of(rule: &str, text: &str, sure: Range<usize>) -> Option<Range<usize>> {
    let end = match rule {
        PRIVATE_KEY => sure.end + last_line(&text[sure.end..])?,
        PRIVATE_KEY_END => return None,
        // Up to the host: a password may hold the sign that ends it.
        CONNECTION_STRING => sure.end + authority(&text[sure.end..]),
        // Between quotes.
        GENERIC_SECRET => sure.end,
        _ => sure.end + text.as_bytes()[sure.end..].iter().take_while(|b| goes_on(b)).count(),
    };
    (end - sure.start <= SECRET_BYTES_MAX).then_some(sure.start..end)
}

/// Whether keys may be written with this character, whoever made them.
pub(in crate::policy) fn is_key_byte(byte: u8) -> bool {
    goes_on(&byte) || b"+/~%".contains(&byte)
}

/// Whether a key of which a pattern saw the beginning may go on with this character. Patterns of
/// keys that hold others see all of them.
fn goes_on(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-=".contains(byte)
}

/// Bytes up to the last `@` of what is still the same word.
fn authority(text: &str) -> usize {
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>' | '/' | ',');
    let word = &text[..text.find(ends).unwrap_or(text.len())];
    word.rfind('@').unwrap_or(0)
}

/// Bytes up to the end of the last line of a private key.
fn last_line(text: &str) -> Option<usize> {
    let begins = text.find(LAST_LINE)? + LAST_LINE.len();
    let line = text[begins..].lines().next()?;
    Some(begins + line.find(DASHES)? + DASHES.len())
}

#[cfg(test)]
mod tests {
    use super::super::Scanner;

    fn found(text: &str) -> Vec<Option<String>> {
        let scanner = Scanner::new(&[]).expect("the table compiles");
        let all = scanner.find_all(text);
        all.into_iter().map(|found| found.whole.map(|range| text[range].to_owned())).collect()
    }

    #[test]
    fn a_secret_is_found_to_its_end() {
        let key = format!("glpat-{}", "a1B2".repeat(7));
        assert_eq!(found(&format!("t({key}, 1)")), [Some(key.clone())]);
        assert_eq!(found(&format!("see {key}.")), [Some(key.clone())]);
        assert_eq!(found(&format!("https://h/{key}/a.git?x")), [Some(key)]);
        let url = "postgres://app:passw9@wo:rd@db.internal/x@y";
        assert_eq!(found(url), [Some("passw9@wo:rd".into())]);
        let account = format!("AccountKey={}==;Suffix", "aB3/".repeat(22).split_at(86).0);
        let value = account.trim_start_matches("AccountKey=").trim_end_matches(";Suffix");
        assert_eq!(found(&account), [Some(value.into())]);
    }

    #[test]
    fn a_private_key_is_all_its_lines_or_not_all_there() {
        let key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----";
        let whole = found(&format!("k = \"{key}\"\n-----END NOTHING-----"));
        assert_eq!(whole, [Some(key.into()), None]);
        assert_eq!(found("-----BEGIN PRIVATE KEY-----\nMHcCAQEE\n"), [None]);
        assert_eq!(found("MHcCAQEE==\n-----END PRIVATE KEY-----"), [None]);
    }
}
