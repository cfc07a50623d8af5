//! From repeats to figures.

/// FNV-1a over ids.
pub(super) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(super) fn add(&mut self, id: u32) {
        for byte in id.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) fn value(&self) -> u64 {
        self.0
    }
}

/// The middle of at least one figure; of an even number, the mean of the two in the middle.
pub(super) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    let last = figures.len() - 1;
    f64::midpoint(figures[last / 2], figures[last.div_ceil(2)])
}

/// The lowest and the highest.
pub(super) fn spread(figures: impl IntoIterator<Item = f64>) -> (f64, f64) {
    figures.into_iter().fold((f64::INFINITY, 0.0), |(low, high), x| (low.min(x), high.max(x)))
}

/// Ratios drawn for an interval.
const RESAMPLES: usize = 2000;
/// The interval is the same for the same figures.
const RESAMPLE_SEED: u64 = 1;

/// The 95 % interval of the sum of the first times over the sum of the second ones, by drawing
/// again from what was measured: as many subjects as there are, and as many runs of each.
/// `times`: for each subject, for each run, the two times.
pub(super) fn ratio_interval(times: &[Vec<(f64, f64)>]) -> (f64, f64) {
    let mut random = fastrand::Rng::with_seed(RESAMPLE_SEED);
    let mut ratios: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let (mut first, mut second) = (0.0, 0.0);
            for _ in times {
                let runs = &times[random.usize(..times.len())];
                for _ in runs {
                    let run = runs[random.usize(..runs.len())];
                    first += run.0;
                    second += run.1;
                }
            }
            first / second
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    (ratios[RESAMPLES / 40], ratios[RESAMPLES - 1 - RESAMPLES / 40])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_as_wide_as_what_was_measured_differs() {
        let same = vec![vec![(3.0, 2.0); 5]; 4];
        let (low, high) = ratio_interval(&same);
        assert!((low - 1.5).abs() < 1e-9 && (high - 1.5).abs() < 1e-9);
        // Two subjects on either side of 1.5: now and then only one of them is drawn.
        let differing = vec![vec![(3.0, 3.0); 5], vec![(3.0, 1.0); 5]];
        assert_eq!(ratio_interval(&differing), (1.0, 3.0));
        // One subject whose runs differ: the interval is narrower than the runs.
        let (low, high) = ratio_interval(&[vec![(2.0, 2.0), (2.0, 1.0), (2.0, 2.0), (2.0, 1.0)]]);
        assert!(low < 4.0 / 3.0 && high > 4.0 / 3.0 && low >= 1.0 && high <= 2.0);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0]), 3.0);
        assert_eq!(median([9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([9.0, 1.0, 2.0, 4.0]), 3.0);
        assert_eq!(spread([2.0, 9.0, 1.0]), (1.0, 9.0));
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        // The published value for the bytes "foobar\0\0", as two words.
        let mut hash = Fnv::default();
        hash.add(u32::from_le_bytes(*b"foob"));
        hash.add(u32::from_le_bytes(*b"ar\0\0"));
        assert_eq!(hash.value(), fnv_of(b"foobar\0\0"));
    }

    fn fnv_of(bytes: &[u8]) -> u64 {
        bytes.iter().fold(14_695_981_039_346_656_037, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(1_099_511_628_211)
        })
    }
}
