//! Text that goes round in circles: lines, or a few bytes.

/// Lines of one round.
const ROUND_LINES_MAX: usize = 8;
/// Rounds of lines after which nothing new is expected: the last of them is not given out.
const ROUNDS: usize = 3;
const LINES: usize = ROUND_LINES_MAX * ROUNDS;
/// Bytes of a line, from the end of the text before it. A longer one is like no other, so that what
/// is held back has a bound.
pub(super) const LINE_BYTES_MAX: usize = 256;

/// Bytes of one round within a line.
const ROUND_BYTES_MAX: usize = 16;
/// So many bytes may repeat what precedes them; those that follow are held back,
const REPEATED_BYTES_MIN: usize = 48;
/// and with so many it is a circle. Rulers of comments are shorter.
const REPEATED_BYTES_MAX: usize = 160;

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    hash: u64,
    /// Where the text before it ends.
    gap: usize,
}

/// The last lines of an answer that hold anything.
#[derive(Debug)]
pub(super) struct Lines {
    last: [Line; LINES],
    count: usize,
}

/// What a line that ended means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// Nothing.
    Open,
    /// A third round may have begun after the text that ends here.
    Pending(usize),
    /// It is over; the text ends here.
    Over(usize),
}

impl Lines {
    pub(super) fn new() -> Self {
        Self { last: [Line::default(); LINES], count: 0 }
    }

    /// Takes a line, the text before it ending at `gap` and its own at `end`.
    pub(super) fn push(&mut self, hash: u64, gap: usize, end: usize) -> Round {
        // Its number makes a long line like no other.
        let is_long = end - gap > LINE_BYTES_MAX;
        let hash = if is_long { !(self.count as u64) } else { hash };
        self.last[self.count % LINES] = Line { hash, gap };
        self.count += 1;
        let mut pending = None;
        for round in 1..=ROUND_LINES_MAX {
            let same = self.same_as_before(round);
            if same >= round * (ROUNDS - 1) {
                return Round::Over(self.back(round - 1).gap);
            }
            if let Some(begun) = same.checked_sub(round * (ROUNDS - 2)) {
                let from = if begun == 0 { end } else { self.back(begun - 1).gap };
                pending = Some(pending.map_or(from, |other: usize| other.min(from)));
            }
        }
        pending.map_or(Round::Open, Round::Pending)
    }

    /// How many of the last lines are what stood `round` lines before them.
    fn same_as_before(&self, round: usize) -> usize {
        let known = self.count.min(LINES).saturating_sub(round);
        (0..known).take_while(|&back| self.back(back).hash == self.back(back + round).hash).count()
    }

    fn back(&self, lines: usize) -> Line {
        self.last[(self.count - 1 - lines) % LINES]
    }
}

/// Bytes that repeat those 1 to [`ROUND_BYTES_MAX`] before them.
#[derive(Debug)]
pub(super) struct Bytes {
    last: [u8; ROUND_BYTES_MAX],
    /// By the length of a round less one: how many bytes in a row repeat.
    repeated: [u32; ROUND_BYTES_MAX],
    count: usize,
}

impl Bytes {
    pub(super) fn new() -> Self {
        Self { last: [0; ROUND_BYTES_MAX], repeated: [0; ROUND_BYTES_MAX], count: 0 }
    }

    /// Takes a byte; where the text ends, if it goes round in circles.
    pub(super) fn push(&mut self, byte: u8) -> Option<usize> {
        for back in 1..=ROUND_BYTES_MAX.min(self.count) {
            let repeats = self.last[(self.count - back) % ROUND_BYTES_MAX] == byte;
            let repeated = &mut self.repeated[back - 1];
            *repeated = if repeats { *repeated + 1 } else { 0 };
        }
        self.last[self.count % ROUND_BYTES_MAX] = byte;
        self.count += 1;
        let longest = *self.repeated.iter().max().expect("there are rounds");
        if longest as usize >= REPEATED_BYTES_MAX { self.held_from() } else { None }
    }

    /// From where on text may be a circle.
    pub(super) fn held_from(&self) -> Option<usize> {
        let longest = *self.repeated.iter().max().expect("there are rounds") as usize;
        let held = longest.checked_sub(REPEATED_BYTES_MIN)?;
        Some(self.count - held)
    }
}
