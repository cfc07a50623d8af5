//! From logits to a token, without sorting the vocabulary.

/// How the next token is drawn from a row's logits. Plain data: the uniform number is drawn by
/// the host from the sequence's seeded generator, so a device keeps no sampling state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Plan {
    /// The highest logit; the lowest id among equals.
    Greedy,
    /// Temperature, then top-k, then min-p, then top-p, then one draw with `uniform`.
    Draw(Draw),
    /// The host needs the logits themselves: penalties, biases, banned ids, top log-probabilities.
    Logits,
}

/// Parameters of one draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Above 0.
    pub temperature: f32,
    /// 0 keeps all.
    pub top_k: u32,
    /// 1.0 keeps all.
    pub top_p: f32,
    /// 0.0 keeps all.
    pub min_p: f32,
    /// In `[0, 1)`.
    pub uniform: f32,
}

/// What a request asks of the sampler.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy.
    pub temperature: f32,
    pub top_k: u32,
    pub top_p: f32,
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of every id in prompt and output; 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted once from the logit of every id in the output.
    pub presence_penalty: f32,
    /// Subtracted from the logit of an id as often as it is in the output.
    pub frequency_penalty: f32,
    /// Added to the logits of ids.
    pub logit_bias: Vec<(u32, f32)>,
    /// None: drawn by the engine.
    pub seed: Option<u64>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: None,
        }
    }
}
