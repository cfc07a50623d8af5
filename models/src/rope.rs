//! Tables of the rotary embedding, computed once at load as transformers computes them:
//! frequencies and angles rounded to f32, so that far positions turn by the same angle.

use std::f64::consts::PI;

use crate::config::{RopeConfig, RopeScaling};

/// Cosines and sines of every position, each `[context, head_dim / 2]`.
pub struct Rope {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    pub fn new(config: &RopeConfig, head_dim: usize, context: usize) -> Self {
        let frequencies = frequencies(config, head_dim);
        let mut cos = Vec::with_capacity(context * frequencies.len());
        let mut sin = Vec::with_capacity(context * frequencies.len());
        for position in 0..context {
            for frequency in &frequencies {
                let angle = f64::from(position as f32 * frequency);
                cos.push(angle.cos() as f32);
                sin.push(angle.sin() as f32);
            }
        }
        Self { cos, sin }
    }

    pub fn tables(&self) -> kernels::RopeTables<'_> {
        kernels::RopeTables { cos: &self.cos, sin: &self.sin }
    }
}

/// Radians per position of each pair: `[head_dim / 2]`.
fn frequencies(config: &RopeConfig, head_dim: usize) -> Vec<f32> {
    (0..head_dim / 2)
        .map(|pair| {
            let exponent = (2 * pair) as f32 / head_dim as f32;
            let frequency = 1.0 / config.theta.powf(f64::from(exponent)) as f32;
            scale(f64::from(frequency), config.scaling) as f32
        })
        .collect()
}

fn scale(frequency: f64, scaling: RopeScaling) -> f64 {
    match scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let original = original_context as f64;
            let wavelength = 2.0 * PI / frequency;
            if wavelength < original / high_freq_factor {
                frequency
            } else if wavelength > original / low_freq_factor {
                frequency / factor
            } else {
                let smooth = (original / wavelength - low_freq_factor)
                    / (high_freq_factor - low_freq_factor);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies_of(scaling: RopeScaling) -> Vec<f32> {
        frequencies(&RopeConfig { theta: 10000.0, scaling }, 8)
    }

    #[test]
    fn position_zero_turns_nothing_and_position_one_by_the_frequency() {
        let rope = Rope::new(&RopeConfig::default(), 8, 3);
        let tables = rope.tables();
        assert_eq!((tables.cos.len(), tables.sin.len()), (12, 12));
        assert_eq!(tables.cos[..4], [1.0; 4]);
        assert_eq!(tables.sin[..4], [0.0; 4]);
        for (sin, frequency) in tables.sin[4..8].iter().zip([1.0f32, 0.1, 0.01, 0.001]) {
            assert!((sin - frequency.sin()).abs() < 1e-7);
        }
    }

    #[test]
    fn llama3_keeps_high_frequencies_and_divides_low_ones() {
        let plain = frequencies_of(RopeScaling::None);
        let scaled = frequencies_of(RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 128,
        });
        // Wavelengths 6.3, 63, 628 and 6283 against a blend between 32 and 128.
        assert_eq!(scaled[0], plain[0]);
        assert!(scaled[1] < plain[1] && scaled[1] > plain[1] / 8.0);
        assert_eq!(scaled[2..], [plain[2] / 8.0, plain[3] / 8.0]);
        let linear = frequencies_of(RopeScaling::Linear { factor: 2.0 });
        assert!(linear.iter().zip(&plain).all(|(linear, plain)| *linear == plain / 2.0));
    }
}
