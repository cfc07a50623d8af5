//! What a client asks for by headers. It can only tighten: there is no word that loosens.

use crate::completion::compliance::{FedRamp, ImpactLevel, NAME_BYTES_MAX, Names, Requires};

/// Days of retention that one may name: a century.
pub const RETENTION_DAYS_MAX: u32 = 36_500;

/// What headers say of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `x-weir-require`
    pub require: Requires,
    /// `x-weir-overflow: never`
    pub stays_here: bool,
}

/// Adds one `x-weir-require` to `require`: `fedramp=high, region=us-gov-west-1`. Of regions and
/// realms several may be named, and any of them will do; of certifications all must be there.
/// The error is for the client.
pub fn require(text: &str, require: &mut Requires) -> Result<(), String> {
    for item in text.split(',') {
        let (key, value) =
            item.split_once('=').ok_or("must be KEY=VALUE, or several with commas between")?;
        let (key, value) = (key.trim(), value.trim());
        match key {
            "fedramp" => once(&mut require.fedramp, word(key, value, &FedRamp::WORDS)?, key)?,
            "impact_level" => {
                once(&mut require.impact_level, word(key, value, &ImpactLevel::WORDS)?, key)?;
            }
            "realm" => one_more(require.realms.get_or_insert_default(), key, value)?,
            "region" => one_more(require.regions.get_or_insert_default(), key, value)?,
            "certification" => one_more(&mut require.certifications, key, value)?,
            "retention_days" => once(&mut require.retention_days, days(value)?, key)?,
            _ => {
                return Err("has keys fedramp, impact_level, realm, region, certification and \
                            retention_days, and no other"
                    .into());
            }
        }
    }
    Ok(())
}

fn once<T>(to: &mut Option<T>, value: T, key: &str) -> Result<(), String> {
    match to.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("names {key} twice")),
    }
}

fn word<T: Copy>(key: &str, value: &str, words: &[(&str, T)]) -> Result<T, String> {
    words.iter().find(|(word, _)| *word == value).map(|(_, meant)| *meant).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("has {key} as one of {}", words.join(", "))
    })
}

fn one_more(names: &mut Names, key: &str, value: &str) -> Result<(), String> {
    if !is_name(value) {
        return Err(format!("has {key} as at most {NAME_BYTES_MAX} of a-z, 0-9, -, _ and ."));
    }
    names.insert(value.into());
    Ok(())
}

fn days(value: &str) -> Result<u32, String> {
    // Parsing would also take a sign.
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let days = value.parse().ok().filter(|days| digits && *days <= RETENTION_DAYS_MAX);
    days.ok_or_else(|| format!("has retention_days as 0 to {RETENTION_DAYS_MAX}"))
}

/// How realms, regions and certifications are written.
pub fn is_name(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Requires, String> {
        let mut all = Requires::default();
        require(text, &mut all).map(|()| all)
    }

    #[test]
    fn what_a_client_requires_is_read() {
        let all =
            read("fedramp=high, region=us-gov-west-1,region = us-gov-east-1 ,realm=aws-us-gov")
                .unwrap();
        assert_eq!(all.fedramp, Some(FedRamp::High));
        let regions = ["us-gov-east-1", "us-gov-west-1"].map(Into::into);
        assert_eq!(all.regions, Some(Names::from(regions)));
        assert_eq!(all.realms, Some(Names::from(["aws-us-gov".into()])));
        let all =
            read("certification=iso27001,certification=hipaa,retention_days=0,impact_level=il5");
        let all = all.unwrap();
        assert_eq!(all.certifications.len(), 2);
        assert_eq!((all.retention_days, all.impact_level), (Some(0), Some(ImpactLevel::Il5)));
    }

    #[test]
    fn what_is_malformed_is_refused_whole() {
        for wrong in [
            "",
            " ",
            ",",
            "fedramp",
            "fedramp=",
            "fedramp=High",
            "fedramp=higher",
            "fedramp=high;region=x",
            "fedramp=high,",
            "fedramp=high,fedramp=low",
            "region=",
            "region=US-GOV",
            "region=a b",
            "colour=red",
            "retention_days=-1",
            "retention_days=+1",
            "retention_days=",
            "retention_days=36501",
            "retention_days=1,retention_days=2",
            "impact_level=5",
            "=high",
            "fedramp==high",
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        let long = format!("region={}", "a".repeat(NAME_BYTES_MAX + 1));
        assert!(read(&long).is_err());
    }
}
