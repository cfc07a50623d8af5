//! How far the logits of one model are from those of another, position by position.

use models::sampler::argmax;

/// What the positions of some prompts came to. All arithmetic is in f64: the divergence of 8-bit
/// weights is a thousandth of what f32 sums over a vocabulary would lose.
#[derive(Default)]
pub(super) struct Divergence {
    /// Mean of each prompt, in nats.
    prompts: Vec<f64>,
    highest: f64,
    positions: usize,
    agreeing: usize,
}

impl Divergence {
    /// Adds the positions of one prompt: both are `[positions, vocab]`.
    pub(super) fn add(&mut self, reference: &[f32], other: &[f32], vocab: usize) {
        assert_eq!(reference.len(), other.len(), "rows of both models");
        let rows = reference.chunks_exact(vocab).zip(other.chunks_exact(vocab));
        let (count, mut sum) = (rows.len(), 0.0);
        for (reference, other) in rows {
            let nats = kl(reference, other);
            sum += nats;
            self.highest = self.highest.max(nats);
            self.agreeing += usize::from(argmax(reference) == argmax(other));
        }
        self.positions += count;
        self.prompts.push(sum / count as f64);
    }

    pub(super) fn positions(&self) -> usize {
        self.positions
    }

    /// Share of the positions at which both have the same likeliest id.
    pub(super) fn agreement(&self) -> f64 {
        self.agreeing as f64 / self.positions as f64
    }

    /// Mean of KL(reference || other) in nats.
    pub(super) fn mean(&self) -> f64 {
        self.prompts.iter().sum::<f64>() / self.prompts.len() as f64
    }

    /// Standard error of the mean over prompts; NaN of a single one.
    pub(super) fn mean_error(&self) -> f64 {
        let (mean, prompts) = (self.mean(), self.prompts.len() as f64);
        let squares: f64 = self.prompts.iter().map(|nats| (nats - mean).powi(2)).sum();
        (squares / (prompts - 1.0) / prompts).sqrt()
    }

    pub(super) fn highest(&self) -> f64 {
        self.highest
    }
}

/// KL(p || q) in nats of the distributions that two rows of logits stand for.
fn kl(p: &[f32], q: &[f32]) -> f64 {
    let highest = |row: &[f32]| f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let (p_highest, q_highest) = (highest(p), highest(q));
    let (mut p_total, mut q_total, mut difference) = (0.0, 0.0, 0.0);
    for (&p, &q) in p.iter().zip(q) {
        let (p, q) = (f64::from(p) - p_highest, f64::from(q) - q_highest);
        let weight = p.exp();
        p_total += weight;
        q_total += q.exp();
        difference += weight * (p - q);
    }
    difference / p_total - p_total.ln() + q_total.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of probabilities, moved by any constant.
    fn logits(probabilities: [f32; 3], by: f32) -> [f32; 3] {
        probabilities.map(|p| p.ln() + by)
    }

    #[test]
    fn divergence_is_that_of_the_probabilities() {
        let (p, q) = ([0.5, 0.25, 0.25], [0.25, 0.5, 0.25]);
        let expected = 0.5 * 2f64.ln() - 0.25 * 2f64.ln();
        assert!((kl(&logits(p, 3.0), &logits(q, -40.0)) - expected).abs() < 1e-6);
        assert!(kl(&logits(p, 3.0), &logits(p, 100.0)).abs() < 1e-6);
    }

    #[test]
    fn prompts_count_alike_and_positions_agree_by_their_likeliest() {
        let (p, q) = (logits([0.5, 0.25, 0.25], 0.0), logits([0.25, 0.5, 0.25], 0.0));
        let mut divergence = Divergence::default();
        divergence.add(&[p, p].concat(), &[p, q].concat(), 3);
        divergence.add(&[p, p].concat(), &[p, p].concat(), 3);
        let most = 0.25 * 2f64.ln();
        assert_eq!((divergence.positions(), divergence.agreement()), (4, 0.75));
        assert!((divergence.highest() - most).abs() < 1e-6);
        assert!((divergence.mean() - most / 4.0).abs() < 1e-6);
        // Means of a half and of nothing.
        assert!((divergence.mean_error() - most / 4.0).abs() < 1e-6);
    }

    #[test]
    fn what_is_no_number_is_not_hidden() {
        let p = logits([0.5, 0.25, 0.25], 0.0);
        let mut divergence = Divergence::default();
        divergence.add(&p, &[f32::NAN; 3], 3);
        assert!(divergence.mean().is_nan());
        assert_eq!(divergence.agreement(), 0.0);
    }
}
