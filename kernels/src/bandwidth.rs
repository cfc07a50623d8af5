//! How fast memory can be read here: what decoding is held against.
//!
//! No loop is the fastest on every machine: one has prefetchers that follow a single stream to
//! the end, another needs several streams, or hints far ahead, to keep its queues full. So there
//! are several loops, and the best of all of them counts.

use std::fmt;
use std::hint::black_box;
use std::ops::Range;
use std::time::Duration;

use crate::cpu::Cpu;
use crate::memory::Pages;
use crate::out::Out;
use crate::prefetch::prefetch_near;
use crate::vector::{self, Vector};

/// Rounds of [`BandwidthProbe::measure`]; the best of each loop counts.
const ROUNDS: usize = 3;

/// Registers that are added to at once: more than an addition takes cycles.
const SUMS: usize = 8;

/// A way to read a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLoop {
    /// Places that a thread reads from in turns.
    pub streams: usize,
    /// How far ahead of each a prefetch runs, in bytes; 0: none does.
    pub ahead: usize,
}

/// The loops of each instruction set, in the order of its table.
pub(crate) const READ_LOOPS: [ReadLoop; 7] = [
    ReadLoop { streams: 1, ahead: 0 },
    ReadLoop { streams: 1, ahead: 1024 },
    ReadLoop { streams: 1, ahead: 4096 },
    ReadLoop { streams: 4, ahead: 0 },
    ReadLoop { streams: 4, ahead: 1024 },
    ReadLoop { streams: 8, ahead: 0 },
    ReadLoop { streams: 8, ahead: 512 },
];

impl fmt::Display for ReadLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { streams, ahead } = self;
        let plural = if *streams == 1 { "" } else { "s" };
        write!(f, "{streams} stream{plural}, ")?;
        if *ahead == 0 { write!(f, "no prefetch") } else { write!(f, "prefetch {ahead} ahead") }
    }
}

/// A buffer in huge pages to measure the read bandwidth of memory with. It keeps its memory, so
/// that repeated measurements differ in time only.
pub struct BandwidthProbe {
    buffer: Pages,
}

impl BandwidthProbe {
    /// Of at least a number. Each thread of `cpu` writes what it will read.
    pub(crate) fn new(cpu: &Cpu, bytes: usize) -> BandwidthProbe {
        let len = (bytes / size_of::<f32>()).max(1);
        let mut buffer = Pages::zeroed(len * size_of::<f32>());
        let numbers = Out::new(buffer.typed_mut());
        cpu.each_share(len, |range: Range<usize>| {
            // SAFETY: no number is dealt twice.
            unsafe { numbers.slice(range) }.fill(1.0);
        });
        BandwidthProbe { buffer }
    }

    /// The best of all loops, in bytes per second, with all threads of `cpu`.
    pub fn measure(&self, cpu: &Cpu) -> f64 {
        self.measure_each(cpu).into_iter().map(|(_, bandwidth)| bandwidth).fold(0.0, f64::max)
    }

    /// The best of each loop, in bytes per second, with all threads of `cpu`.
    pub fn measure_each(&self, cpu: &Cpu) -> Vec<(ReadLoop, f64)> {
        let mut best = vec![Duration::MAX; READ_LOOPS.len()];
        for _ in 0..ROUNDS {
            for (number, best) in best.iter_mut().enumerate() {
                *best = (*best).min(cpu.time_reading(self.buffer.typed(), number));
            }
        }
        let bandwidth = |time: Duration| self.buffer.len() as f64 / time.as_secs_f64();
        READ_LOOPS.into_iter().zip(best.into_iter().map(bandwidth)).collect()
    }
}

/// The sum of `x`, whatever the loop: what is read must be of use.
///
/// # Safety
/// The machine has V's instruction set.
#[inline(always)]
pub(crate) unsafe fn read<V: Vector, const LOOP: usize>(x: &[f32]) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        match const { READ_LOOPS[LOOP].streams } {
            1 => read_streams::<V, LOOP, 1>(x),
            4 => read_streams::<V, LOOP, 4>(x),
            8 => read_streams::<V, LOOP, 8>(x),
            streams => unreachable!("no loop of {streams} streams was compiled"),
        }
    }
}

/// # Safety
/// The machine has V's instruction set.
#[inline(always)]
unsafe fn read_streams<V: Vector, const LOOP: usize, const STREAMS: usize>(x: &[f32]) -> f32 {
    const { assert!(SUMS.is_multiple_of(STREAMS)) };
    let turn = SUMS / STREAMS * V::LANES;
    let len = x.len() / (STREAMS * turn) * turn;
    let (x, rest) = x.split_at(STREAMS * len);
    // SAFETY: stream `i` is the `len` numbers from `i * len` on, a multiple of `turn`; the
    // instruction set is the caller's promise.
    unsafe {
        let mut sums = [V::splat(0.0); SUMS];
        for k in (0..len).step_by(turn) {
            for (i, sum) in sums.iter_mut().enumerate() {
                let at = x.as_ptr().add(i % STREAMS * len + k + i / STREAMS * V::LANES);
                prefetch::<LOOP>(at);
                *sum = sum.add(V::load(at));
            }
        }
        rest.iter().sum::<f32>() + sums.into_iter().map(|lanes| vector::sum(lanes)).sum::<f32>()
    }
}

/// The address may lie beyond the buffer.
#[inline(always)]
fn prefetch<const LOOP: usize>(at: *const f32) {
    let ahead = const { READ_LOOPS[LOOP].ahead };
    if ahead == 0 {
        return;
    }
    prefetch_near(at.wrapping_byte_add(ahead));
}

impl Cpu {
    /// A probe over as many bytes, which should be many times the size of the caches.
    pub fn bandwidth_probe(&self, bytes: usize) -> BandwidthProbe {
        BandwidthProbe::new(self, bytes)
    }

    /// Read bandwidth of memory in bytes per second, with all threads, by a probe for this once.
    pub fn read_bandwidth(&self, bytes: usize) -> f64 {
        self.bandwidth_probe(bytes).measure(self)
    }

    /// How long all threads take to read all of it.
    fn time_reading(&self, numbers: &[f32], read_loop: usize) -> Duration {
        let read = self.table().reads[read_loop];
        let start = std::time::Instant::now();
        self.each_share(numbers.len(), |range| {
            // SAFETY: the table is of an instruction set that this machine has.
            black_box(unsafe { read(&numbers[range]) });
        });
        start.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch;
    use crate::isa::Isa;

    #[test]
    fn every_loop_reads_every_number_once() {
        for isa in Isa::available() {
            let table = arch::table(isa).expect("it is available");
            for len in [0, 1, 15, 16, 127, 128, 129, 1000, 4096 + 3] {
                // Sums below 2^24 are exact in any order.
                let numbers: Vec<f32> = (0..len).map(|i| (i % 1000) as f32).collect();
                let sum: f32 = numbers.iter().sum();
                for (read, read_loop) in table.reads.iter().zip(READ_LOOPS) {
                    // SAFETY: the table is of an instruction set that this machine has.
                    assert_eq!(unsafe { read(&numbers) }, sum, "{isa}, {read_loop}, {len}");
                }
            }
        }
    }

    #[test]
    fn a_probe_measures_every_loop_and_says_the_best() {
        for threads in [1, 2] {
            let cpu = Cpu::new(Isa::best(), threads).expect("the best is available");
            for bytes in [0, 5, 4 << 20] {
                let probe = cpu.bandwidth_probe(bytes);
                assert!(probe.buffer.typed::<f32>().iter().all(|&number| number == 1.0));
                let each = probe.measure_each(&cpu);
                assert_eq!(each.len(), READ_LOOPS.len());
                assert!(each.iter().all(|(_, bandwidth)| *bandwidth > 0.0), "{each:?}");
            }
        }
    }

    #[test]
    fn loops_have_names() {
        assert_eq!(READ_LOOPS[0].to_string(), "1 stream, no prefetch");
        assert_eq!(READ_LOOPS[4].to_string(), "4 streams, prefetch 1024 ahead");
    }
}
