//! What goes upstream in place of a request that holds secrets: the same request with a
//! placeholder for each, and what puts the secrets back into the answer.
//!
//! A redaction is exact or it is not made: where a secret cannot be replaced whole (it lies across
//! the cursor, or its end is not there), where the scan of what was made of the request still
//! finds something, or where an answer could not be told from a placeholder, the request stays.

mod restore;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use aws_lc_rs::rand;
use models::text::StopStrings;

pub use self::restore::{Damaged, Restorer, Restoring};
use super::secrets::{Scanner, is_key_byte, parts};
use super::upstream::without_roots;
use crate::completion::compliance::OnSecret;
use crate::completion::{CompletionRequest, Input};

/// Most different secrets of a request; one with more is no source text.
const SECRETS_MAX: usize = 64;
/// Shortest secret that is replaced outside of where a rule found it, too: a shorter one may be a
/// word of the language.
const QUOTED_BYTES_MIN: usize = 8;
/// Random bytes of a request's placeholders.
const NONCE_BYTES: usize = 6;
/// How placeholders begin: the first that the request does not hold already, in whatever spelling.
const STEMS: [&str; 3] = ["WEIR_SECRET_", "WEIR_HIDDEN_", "WEIR_MASKED_"];

/// Where secrets lie in one text, in its order and without overlaps.
type Places = Vec<Range<usize>>;

/// A request as a cloud may have it.
#[derive(Clone, Debug, Default)]
pub struct Cleared {
    /// What goes in its place; None: it goes as it is.
    pub request: Option<Arc<CompletionRequest>>,
    pub redaction: Option<Redaction>,
}

/// What was taken out of a request.
#[derive(Clone, Debug)]
pub struct Redaction {
    /// Puts it back into the answer.
    pub restorer: Arc<Restorer>,
    /// The rules that found it, each once.
    pub rules: Vec<Arc<str>>,
    /// The client's own, which may be in what is put back.
    pub stops: Arc<StopStrings>,
}

/// The names are the operator's and weir's own, so that a record may hold them.
impl Redaction {
    fn rule(&self, allowed: &str) -> Arc<str> {
        format!("{allowed}, redacted {}", self.rules.join("+")).into()
    }
}

impl Scanner {
    /// What may leave of a request; or the rule that found what keeps it here.
    pub fn clear(&self, request: &CompletionRequest) -> Result<Cleared, Arc<str>> {
        let rootless = without_roots(request);
        let held = self.scan(rootless.as_ref().unwrap_or(request));
        let Some(rule) = held else {
            return Ok(Cleared { request: rootless.map(Arc::new), redaction: None });
        };
        if request.policy.on_secret == OnSecret::Stay {
            return Err(rule.clone());
        }
        let rootless = rootless.unwrap_or_else(|| request.clone());
        let (mut request, redaction) = self.redact(rootless).ok_or_else(|| rule.clone())?;
        request.policy.rule = redaction.rule(&request.policy.rule);
        Ok(Cleared { request: Some(Arc::new(request)), redaction: Some(redaction) })
    }

    /// None: it cannot be done exactly.
    fn redact(&self, mut request: CompletionRequest) -> Option<(CompletionRequest, Redaction)> {
        if request.logprobs.is_some() || request.echo {
            // Log-probabilities are of a placeholder's tokens, which nobody asked for.
            return None;
        }
        let own_stops = request.stop.strings.clone();
        let texts = texts(&mut request);
        let (places, rules) = self.places(&texts)?;
        let secrets = distinct(&texts, &places);
        if secrets.is_empty() || secrets.len() > SECRETS_MAX {
            return None;
        }
        let restorer = Restorer::new(name(&texts, &secrets)?);
        replace(texts, &places, &restorer)?;
        let is_exact = !is_cut(&request.input, &restorer)
            && !own_stops.iter().any(|stop| cuts(stop, &restorer))
            && self.is_clean(&request, &restorer);
        let stops = Arc::new(StopStrings::new(&own_stops).ok()?);
        let redaction = Redaction { restorer: Arc::new(restorer), rules, stops };
        is_exact.then_some((request, redaction))
    }

    /// Where in each text secrets lie, and the rules that found them, each once. None: one is not
    /// all there.
    fn places(&self, texts: &[&mut String]) -> Option<(Vec<Places>, Vec<Arc<str>>)> {
        let (mut places, mut rules) = (Vec::new(), Vec::<Arc<str>>::new());
        for text in texts {
            let all = self.find_all(text);
            let whole = merged(all.iter().filter_map(|found| found.whole.clone()).collect());
            for found in all {
                // Half a secret counts as the other half of one that is there.
                if found.sure.is_empty() || !is_within(&found.sure, &whole) {
                    return None;
                }
                if !rules.contains(found.rule) {
                    rules.push(found.rule.clone());
                }
            }
            places.push(whole);
        }
        Some((places, rules))
    }

    /// Whether nothing is found any more but placeholders, wherever [`Scanner::scan`] looks.
    fn is_clean(&self, request: &CompletionRequest, restorer: &Restorer) -> bool {
        let parts = parts(&request.input);
        let whole = parts.concat();
        let stops = request.stop.strings.iter().map(String::as_str);
        parts.iter().map(|part| &**part).chain(stops).chain([&*whole]).all(|text| {
            let safe = restorer.places(text);
            self.find_all(text).iter().all(|found| is_within(&found.sure, &safe))
        })
    }
}

/// Every text of a request that goes upstream; of a cursor the last two are what is before and
/// behind it.
fn texts(request: &mut CompletionRequest) -> Vec<&mut String> {
    let mut texts: Vec<&mut String> = request.stop.strings.iter_mut().collect();
    match &mut request.input {
        Input::Text(text) => texts.push(text),
        Input::Tokens(_) => {}
        Input::Chat(messages) => texts.extend(messages.iter_mut().map(|m| &mut m.content)),
        Input::Fim(fim) => {
            texts.extend(fim.extra.iter_mut().flat_map(|file| [&mut file.path, &mut file.text]));
            texts.extend(fim.repository.iter_mut().chain(&mut fim.path));
            texts.extend([&mut fim.prefix, &mut fim.suffix]);
        }
    }
    texts
}

fn is_within(range: &Range<usize>, one_of: &[Range<usize>]) -> bool {
    one_of.iter().any(|all| all.start <= range.start && range.end <= all.end)
}

/// Ranges without those that overlap: they are one.
fn merged(mut ranges: Places) -> Places {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged = Places::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

fn distinct(texts: &[&mut String], places: &[Places]) -> Vec<String> {
    let all = texts
        .iter()
        .zip(places)
        .flat_map(|(text, places)| places.iter().map(|place| text[place.clone()].to_owned()));
    let mut distinct: Vec<String> = Vec::new();
    for secret in all {
        if distinct.len() <= SECRETS_MAX && !distinct.contains(&secret) {
            distinct.push(secret);
        }
    }
    distinct
}

/// A placeholder for each secret that neither a text nor chance holds.
fn name(texts: &[&mut String], secrets: &[String]) -> Option<restore::Names> {
    let mut nonce = [0; NONCE_BYTES];
    rand::fill(&mut nonce).ok()?;
    let nonce: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
    let spelled: Vec<String> = texts.iter().map(|text| restore::letters(text)).collect();
    let is_free = |word: &str| !spelled.iter().any(|text| text.contains(word));
    let stem = STEMS.into_iter().find(|stem| is_free(&restore::letters(stem)))?;
    let secrets = secrets.iter().zip(1..);
    let pairs = secrets.map(|(secret, n)| (format!("{stem}{n}_{nonce}"), secret.clone()));
    let names = restore::Names { stem: restore::letters(stem), pairs: pairs.collect(), nonce };
    is_free(&names.nonce).then_some(names)
}

/// Replaces every secret in its places, and where it is quoted outside of them.
fn replace(texts: Vec<&mut String>, places: &[Places], by: &Restorer) -> Option<()> {
    let quotable = |secret: &&str| secret.len() >= QUOTED_BYTES_MIN;
    let secrets: Vec<&str> = by.secrets().filter(quotable).collect();
    let quoted = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&secrets);
    let quoted = quoted.ok()?;
    for (text, places) in texts.into_iter().zip(places) {
        let mut redacted = String::with_capacity(text.len());
        let outside = |text: &str, redacted: &mut String| {
            quoted.replace_all_with(text, redacted, |_, secret, redacted| {
                redacted.push_str(by.placeholder(secret).expect("of these secrets"));
                true
            });
        };
        let mut from = 0;
        for place in places {
            outside(&text[from..place.start], &mut redacted);
            redacted.push_str(by.placeholder(&text[place.clone()])?);
            from = place.end;
        }
        outside(&text[from..], &mut redacted);
        *text = redacted;
    }
    Some(())
}

/// Whether a secret may go on behind the cursor, or in the next file, or have begun before.
fn is_cut(input: &Input, restorer: &Restorer) -> bool {
    let Input::Fim(fim) = input else { return false };
    let texts = fim.extra.iter().map(|file| &file.text).chain([&fim.prefix, &fim.suffix]);
    let texts: Vec<&String> = texts.collect();
    texts.windows(2).any(|pair| {
        let before = pair[0].bytes().next_back().is_some_and(is_key_byte);
        let behind = pair[1].bytes().next().is_some_and(is_key_byte);
        let touches = |one: &str| pair[0].ends_with(one) || pair[1].starts_with(one);
        before && behind && restorer.placeholders().any(touches)
    })
}

/// Whether a stop string may end an answer within a placeholder, or before one by its beginning.
fn cuts(stop: &str, restorer: &Restorer) -> bool {
    let begins = |one: &str| stop.char_indices().any(|(at, _)| one.starts_with(&stop[at..]));
    restorer.placeholders().any(|one| one.contains(stop) || begins(one))
}
