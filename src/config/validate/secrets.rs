//! What secrets look like beside the known formats, and what becomes of requests that hold one.

use std::sync::Arc;

use super::Checker;
use crate::completion::compliance::OnSecret;
use crate::config::raw::{RawSecret, RawTenant, row_prefix};
use crate::policy::secrets::{OWN_MAX, PATTERN_BYTES_MAX, Scanner, SecretRule};

const ON_SECRET: [(&str, OnSecret); 2] = [("stay", OnSecret::Stay), ("redact", OnSecret::Redact)];

impl Checker<'_> {
    pub(super) fn on_secret(&mut self, typed: Option<&str>, default: OnSecret) -> OnSecret {
        self.choice("on_secret", typed, default, &ON_SECRET)
    }

    /// A tenant may only be stricter than the house.
    pub(super) fn stricter_on_secret(&mut self, raw: &RawTenant, house: OnSecret) -> OnSecret {
        let own = self.on_secret(raw.on_secret.as_deref(), house);
        if own < house {
            self.complain("on_secret", "is looser than [overflow] on_secret, which is stay");
        }
        own.max(house)
    }

    pub(super) fn secrets(&mut self, raw: &[RawSecret]) -> Vec<SecretRule> {
        self.prefix = String::new();
        if raw.len() > OWN_MAX {
            self.complain(
                "[[secret]]",
                format!("must be at most {OWN_MAX} rows, are {}", raw.len()),
            );
        }
        let mut rules = Vec::new();
        for (index, row) in raw.iter().enumerate() {
            self.prefix = row_prefix("secret", row.name.as_deref(), index);
            rules.extend(self.secret(row));
        }
        self.prefix = String::new();
        if let Err((index, wrong)) = Scanner::new(&rules) {
            let name = rules.get(index).map_or("", |rule| &*rule.name);
            self.complain(
                "[[secret]]",
                format!("{name}: cannot be compiled with the others: {wrong}"),
            );
        }
        rules
    }

    fn secret(&mut self, raw: &RawSecret) -> Option<SecretRule> {
        let name = self.required("name", raw.name.as_deref());
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_name = name.is_none_or(|name| name.len() <= 64 && name.bytes().all(allowed));
        if !is_name {
            self.complain("name", "must be at most 64 of a-z, 0-9 and -");
        }
        let pattern = self.required("pattern", raw.pattern.as_deref());
        let rule = SecretRule { name: Arc::from(name?), pattern: pattern?.to_owned() };
        let wrong = match rule.pattern.len() > PATTERN_BYTES_MAX {
            true => Some(format!("must be at most {PATTERN_BYTES_MAX} bytes")),
            false => Scanner::new(std::slice::from_ref(&rule)).err().map(|(_, wrong)| wrong),
        };
        if let Some(wrong) = &wrong {
            self.complain("pattern", format!("is no pattern: {}", wrong.replace('\n', " ")));
        }
        (is_name && wrong.is_none()).then_some(rule)
    }
}
