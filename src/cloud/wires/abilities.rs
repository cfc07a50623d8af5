//! What an API has fields for, held against what a request asks: a row refuses what it cannot
//! honour in full, by the name of the field.

use crate::completion::{CompletionRequest, Input, Reason, Refusal};
use crate::config::{CloudConfig, CloudFim};
use crate::money::Asked;

/// The fields that not every API has.
#[derive(Clone, Copy, Debug)]
pub(in crate::cloud) struct Abilities {
    /// Messages, as a chat model reads them.
    pub(in crate::cloud) chat: bool,
    /// Several choices.
    pub(in crate::cloud) n: bool,
    pub(in crate::cloud) seed: bool,
    /// Presence and frequency penalties.
    pub(in crate::cloud) penalties: bool,
    pub(in crate::cloud) top_k: bool,
    /// Alternatives per token, on a route that completes; None: no log-probabilities.
    pub(in crate::cloud) logprobs: Option<u32>,
}

/// What `request` would ask of `row`: never less than its wire will make of it.
pub(in crate::cloud) fn quote(
    request: &CompletionRequest,
    row: &CloudConfig,
    abilities: Abilities,
) -> Result<Asked, Refusal> {
    check(request, row, abilities)?;
    let (bytes, messages) = size(&request.input);
    let messages = if row.fim == CloudFim::Chat { messages.max(2) } else { messages };
    let max_tokens = u64::from(super::max_tokens(request, row));
    Ok(Asked { bytes, messages, max_tokens, n: u64::from(request.n) })
}

/// Refuses what the row cannot honour.
pub(in crate::cloud) fn check(
    request: &CompletionRequest,
    row: &CloudConfig,
    abilities: Abilities,
) -> Result<(), Refusal> {
    match cannot(request, row, abilities) {
        None => Ok(()),
        Some(field) => {
            let message = format!("no configured cloud can honour `{field}`");
            Err(Refusal::new(Reason::CloudCannot(field), message))
        }
    }
}

/// Bytes that a prompt may have beside its texts: the words around a part, in a template's tokens
/// or in tags,
const PART_BYTES: u64 = 64;
/// and what a chat model is told to do.
const INSTRUCTION_BYTES: u64 = 512;

/// Bytes and messages.
fn size(input: &Input) -> (u64, u64) {
    let (mut bytes, mut messages) = (INSTRUCTION_BYTES, 0);
    let mut part = |text: &str| bytes += text.len() as u64 + PART_BYTES;
    match input {
        Input::Text(text) => part(text),
        Input::Fim(fim) => {
            let names = fim.path.iter().chain(&fim.repository);
            let extras = fim.extra.iter().flat_map(|file| [&file.path, &file.text]);
            [&fim.prefix, &fim.suffix].into_iter().chain(names).chain(extras).for_each(|t| part(t));
        }
        Input::Chat(all) => {
            messages = all.len() as u64;
            all.iter().for_each(|message| part(&message.content));
        }
        Input::Tokens(_) => unreachable!("refused by check()"),
    }
    (bytes, messages)
}

/// The first field of `request` that `row` cannot honour in full.
fn cannot(
    request: &CompletionRequest,
    row: &CloudConfig,
    abilities: Abilities,
) -> Option<&'static str> {
    let sampling = &request.sampling;
    let stop = &request.stop;
    let chat = matches!(request.input, Input::Chat(_)) || row.fim == CloudFim::Chat;
    let around = match &request.input {
        Input::Fim(fim) if row.fim == CloudFim::Suffix => Some(fim),
        _ => None,
    };
    let logprobs_max = abilities.logprobs.filter(|_| !chat);
    let penalised = sampling.presence_penalty != 0.0 || sampling.frequency_penalty != 0.0;
    let checks = [
        ("prompt", matches!(request.input, Input::Tokens(_))),
        ("messages", matches!(request.input, Input::Chat(_)) && !abilities.chat),
        // Where there is no field for a path it is left out: a hint, and settled policy by now.
        ("extra_files", around.is_some_and(|fim| !fim.extra.is_empty())),
        ("max_tokens", request.max_tokens == Some(0)),
        ("n", request.n > 1 && !abilities.n),
        ("seed", sampling.seed.is_some() && !abilities.seed),
        ("presence_penalty", penalised && !abilities.penalties),
        ("echo", request.echo),
        ("logprobs", request.logprobs.is_some_and(|top| logprobs_max.is_none_or(|max| top > max))),
        ("logit_bias", !sampling.logit_bias.is_empty()),
        ("top_k", sampling.top_k != 0 && !abilities.top_k),
        ("min_p", sampling.min_p != 0.0),
        ("repetition_penalty", sampling.repetition_penalty != 1.0),
        ("ignore_eos", stop.ignore_eos),
        ("min_tokens", stop.min_tokens != 0),
        ("stop_token_ids", !stop.token_ids.is_empty()),
    ];
    checks.iter().find(|(_, refused)| *refused).map(|(field, _)| *field)
}
