//! How fast memory can be read here: what decoding is held against.
//!
//! No loop is the fastest on every machine: one has prefetchers that follow a single stream to
//! the end, another needs several streams, or hints far ahead, to keep its queues full. So there
//! are several loops, and the best of all of them counts.
//!
//! Memory that is shared with other machines delivers more in one moment than in the next. So
//! rounds of the loops take turns with the work that is held against them, and a loop's rate is
//! that of all its rounds together, as the work's is; the luckiest round is told beside it.

use std::fmt;
use std::hint::black_box;
use std::ops::Range;
use std::time::Duration;

use crate::cpu::Cpu;
use crate::memory::Pages;
use crate::out::Out;
use crate::prefetch::prefetch_near;
use crate::vector::{self, Vector};

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

    /// Reads the buffer once by each loop, with all threads of `cpu`.
    pub fn round(&self, cpu: &Cpu, rounds: &mut Rounds) {
        for (number, times) in rounds.loops.iter_mut().enumerate() {
            let time = cpu.time_reading(self.buffer.typed(), number);
            times.total += time;
            times.best = times.best.min(time);
        }
        rounds.bytes = self.buffer.len();
        rounds.count += 1;
    }
}

/// What a probe's rounds took.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    loops: [Times; READ_LOOPS.len()],
    /// Of the buffer.
    bytes: usize,
    count: u32,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    total: Duration,
    best: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times { total: Duration::ZERO, best: Duration::MAX }
    }
}

/// Bytes per second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bandwidth {
    /// Of all rounds together.
    pub mean: f64,
    /// Of the best round.
    pub best: f64,
}

impl Rounds {
    /// The best of all loops.
    pub fn bandwidth(&self) -> Bandwidth {
        self.each().fold(Bandwidth::default(), |a, (_, b)| Bandwidth {
            mean: a.mean.max(b.mean),
            best: a.best.max(b.best),
        })
    }

    /// Of each loop.
    pub fn each(&self) -> impl Iterator<Item = (ReadLoop, Bandwidth)> {
        let rate =
            |count: u32, time: Duration| f64::from(count) * self.bytes as f64 / time.as_secs_f64();
        READ_LOOPS.into_iter().zip(&self.loops).map(move |(read_loop, times)| {
            let mean = rate(self.count, times.total);
            (read_loop, Bandwidth { mean, best: rate(1, times.best) })
        })
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
                let mut rounds = Rounds::default();
                (0..3).for_each(|_| probe.round(&cpu, &mut rounds));
                assert_eq!(rounds.each().count(), READ_LOOPS.len());
                let all = rounds.bandwidth();
                for (read_loop, Bandwidth { mean, best }) in rounds.each() {
                    // Equal times differ in the last bit of what is made of them.
                    let most = best * (1.0 + 1e-12);
                    assert!(0.0 < mean && mean <= most, "{read_loop}: {mean}, {best}");
                    assert!(mean <= all.mean && best <= all.best, "{read_loop}: {all:?}");
                }
            }
        }
    }

    #[test]
    fn loops_have_names() {
        assert_eq!(READ_LOOPS[0].to_string(), "1 stream, no prefetch");
        assert_eq!(READ_LOOPS[4].to_string(), "4 streams, prefetch 1024 ahead");
    }
}
