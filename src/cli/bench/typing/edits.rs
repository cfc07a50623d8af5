//! Edit sessions made from real files: what somebody who wrote a file's text may have typed, and
//! when. A pure function of the files and a seed.
//!
//! A session is a row of [`Passage`]s. For each a piece of a file is taken out, and typed again
//! where it was: in bursts with pauses between them, with slips that are taken back at once and
//! second thoughts that take back more. So whatever a client asks at any moment, what a person
//! would have liked to read is known: the rest of the piece.

use std::time::Duration;

use super::sources::Source;

/// Between two keys, milliseconds: lognormal around the median, within what counts as typing.
const KEY_MEDIAN_MS: f64 = 180.0;
const KEY_SIGMA: f64 = 0.5;
const KEY_MS: (f64, f64) = (40.0, 400.0);
/// Keys between two pauses.
const BURST: std::ops::RangeInclusive<usize> = 5..=30;
/// Seconds of a pause; as many are shorter than a second as are longer than three halves of one.
const PAUSE_S: (f64, f64) = (0.5, 5.0);
/// How often a key is the wrong one.
const SLIP_PART: f64 = 0.03;
/// How often a burst ends with second thoughts, and how many keys they take back.
const RETHINK_PART: f64 = 0.15;
const RETHINK: std::ops::RangeInclusive<usize> = 2..=12;
/// How often a suggestion that is on the screen is taken though it is not what will be written.
const TAKE_PART: f64 = 0.3;
/// Bytes of a passage, about; it goes on to the end of its line.
const PASSAGE_BYTES: std::ops::RangeInclusive<usize> = 30..=300;
/// How often the next passage is in the same file.
const SAME_FILE_PART: f64 = 0.7;

/// A piece of a file that is typed anew.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Passage {
    /// Index of the file.
    pub(super) file: usize,
    /// Bytes: the piece's first, and the first behind it.
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) beats: Vec<Beat>,
}

/// Something that is done a while after what was done before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Beat {
    pub(super) wait: Duration,
    pub(super) act: Act,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Act {
    /// Takes away what is wrong before the cursor, or types what comes next.
    Type,
    /// A character that does not belong here.
    Slip(char),
    Backspace,
    /// Looks at what is on the screen: a suggestion that is right is taken; `takes`: any is.
    Look {
        takes: bool,
    },
}

/// Passages without end.
pub(super) struct Session<'a> {
    files: &'a [Source],
    file: usize,
    luck: fastrand::Rng,
}

impl<'a> Session<'a> {
    /// `files`: at least one, none of them empty.
    pub(super) fn new(files: &'a [Source], seed: u64) -> Self {
        let mut luck = fastrand::Rng::with_seed(seed);
        let file = luck.usize(..files.len());
        Self { files, file, luck }
    }

    /// A piece that begins where a word or a line does, or in the middle of one, and ends with a
    /// line.
    fn place(&mut self) -> (usize, usize) {
        let text = &self.files[self.file].text;
        let from = text.floor_char_boundary(self.luck.usize(..text.len()));
        let bytes = self.luck.usize(PASSAGE_BYTES);
        let about = text.floor_char_boundary((from + bytes).min(text.len()));
        let to = text[about..].find('\n').map_or(text.len(), |end| about + end);
        (from, to)
    }

    fn beats(&mut self, piece: &str) -> Vec<Beat> {
        let keys = Keys::of(piece);
        let mut beats = Vec::with_capacity(keys.count * 2);
        let (mut typed, mut burst) = (0, self.luck.usize(BURST));
        while typed < keys.count {
            if self.luck.f64() < SLIP_PART {
                let wrong = char::from(self.luck.u8(b'a'..=b'z'));
                beats.push(self.beat(Act::Slip(wrong)));
                // This one takes it back, whatever it is.
                beats.push(self.beat(Act::Type));
            }
            beats.push(self.beat(Act::Type));
            typed += 1;
            burst -= 1;
            if burst > 0 || typed == keys.count {
                continue;
            }
            if self.luck.f64() < RETHINK_PART {
                let back = self.luck.usize(RETHINK).min(typed);
                beats.extend((0..back).map(|_| self.beat(Act::Backspace)).collect::<Vec<_>>());
                typed -= back;
            }
            beats.push(self.pause());
            burst = self.luck.usize(BURST);
        }
        beats.push(self.pause());
        beats
    }

    fn beat(&mut self, act: Act) -> Beat {
        let ms = (KEY_MEDIAN_MS.ln() + KEY_SIGMA * self.normal()).exp();
        let ms = ms.clamp(KEY_MS.0, KEY_MS.1);
        Beat { wait: Duration::from_secs_f64(ms / 1e3), act }
    }

    fn pause(&mut self) -> Beat {
        let (low, high) = PAUSE_S;
        let seconds = low * (high / low).powf(self.luck.f64());
        let takes = self.luck.f64() < TAKE_PART;
        Beat { wait: Duration::from_secs_f64(seconds), act: Act::Look { takes } }
    }

    /// Box and Muller's.
    fn normal(&mut self) -> f64 {
        let (a, b) = (1.0 - self.luck.f64(), self.luck.f64());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }
}

impl Iterator for Session<'_> {
    type Item = Passage;

    fn next(&mut self) -> Option<Passage> {
        if self.luck.f64() >= SAME_FILE_PART {
            self.file = self.luck.usize(..self.files.len());
        }
        let (file, (from, to)) = (self.file, self.place());
        let beats = self.beats(&self.files[file].text[from..to]);
        Some(Passage { file, from, to, beats })
    }
}

/// What one key types of a text: a character; the end of a line brings the next one's
/// indentation with it, as in every editor.
pub(super) fn key(text: &str) -> &str {
    let Some(first) = text.chars().next() else { return "" };
    let rest = &text[first.len_utf8()..];
    let indentation = match first {
        '\n' => rest.len() - rest.trim_start_matches([' ', '\t']).len(),
        _ => 0,
    };
    &text[..first.len_utf8() + indentation]
}

/// The keys of a piece.
struct Keys {
    count: usize,
}

impl Keys {
    fn of(mut piece: &str) -> Self {
        let mut count = 0;
        while !piece.is_empty() {
            piece = &piece[key(piece).len()..];
            count += 1;
        }
        Self { count }
    }
}

#[cfg(test)]
mod tests {
    use super::super::desk::Desk;
    use super::super::sources;
    use super::*;

    #[test]
    fn a_seed_makes_one_session() {
        let files = sources::own();
        let session = |seed| Session::new(&files, seed).take(20).collect::<Vec<_>>();
        assert_eq!(session(7), session(7));
        assert_ne!(session(7), session(8));
    }

    #[test]
    fn what_is_typed_is_what_the_file_has() {
        let files = sources::own();
        for seed in 0..40 {
            for passage in Session::new(&files, seed).take(25) {
                let file = &files[passage.file];
                let mut desk = Desk::new(file, passage.from, passage.to);
                for beat in &passage.beats {
                    let (before, next) = (desk.typed(), key(desk.rest()));
                    desk.act(beat.act);
                    // Now and then what slips is right.
                    if let Act::Slip(wrong) = beat.act {
                        assert_eq!(desk.is_right(), next.starts_with(wrong));
                        continue;
                    }
                    assert!(desk.is_right(), "{before:?} became {:?}", desk.typed());
                    let whole = format!("{}{}{}", desk.prefix(), desk.rest(), desk.suffix());
                    assert_eq!(whole, file.text);
                    assert!(file.text.starts_with(&desk.prefix()));
                }
                assert_eq!(desk.rest(), "", "all of it is typed in the end");
            }
        }
    }

    #[test]
    fn times_are_those_of_people() {
        let files = sources::own();
        let beats: Vec<Beat> =
            Session::new(&files, 3).take(300).flat_map(|passage| passage.beats).collect();
        let of = |looks: bool| {
            let mut ms: Vec<f64> = beats
                .iter()
                .filter(|beat| matches!(beat.act, Act::Look { .. }) == looks)
                .map(|beat| beat.wait.as_secs_f64() * 1e3)
                .collect();
            ms.sort_by(f64::total_cmp);
            ms
        };
        let (keys, pauses) = (of(false), of(true));
        assert!(keys[0] >= KEY_MS.0 && keys[keys.len() - 1] <= KEY_MS.1);
        assert!((keys[keys.len() / 2] - KEY_MEDIAN_MS).abs() < 9.0, "{}", keys[keys.len() / 2]);
        assert!(pauses[0] >= 500.0 && pauses[pauses.len() - 1] <= 5000.0);
        // A burst has 5 to 30 keys, and what is slipped, taken back and typed again.
        let each = keys.len() / pauses.len();
        assert!((10..=25).contains(&each), "{each} keys for each pause");
    }

    #[test]
    fn a_line_s_end_brings_its_indentation() {
        assert_eq!(key("\n    let x"), "\n    ");
        assert_eq!(key("\n\n  x"), "\n");
        assert_eq!(key("é="), "é");
        assert_eq!(key(""), "");
    }
}
