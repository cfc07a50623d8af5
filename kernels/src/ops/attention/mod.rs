//! Attention of query rows over a KV cache in blocks.
//!
//! The positions of a sequence are taken in spans of [`SPAN`]. Within one (row, head) each score
//! is one chain of additions over the head's numbers, the softmax knows the whole span, each
//! number of the weighted sum of V is one chain over the span's positions (of pairs, where an
//! instruction multiplies pairs), and the spans join from first to last. Which (row, head) pairs
//! share a register tile, and whether the spans of a row are dealt to several threads, therefore
//! shows in no bit of a result.

mod join;
mod scheme;
mod tile;

use std::ops::Range;

use crate::kv::{KvElem, KvShape, Planes};
use crate::out::Out;
use crate::shape::{AttendRow, Query};
use crate::vector::{LANES_MAX, Vector};

pub(crate) use join::State;
use join::divide;
pub(crate) use join::join_spans;
#[cfg(target_arch = "x86_64")]
pub(crate) use scheme::Rounded;
pub(crate) use scheme::{Halves, Plain, Scheme};
use tile::Place;
pub(crate) use tile::{Work, tile};

/// Positions whose softmax is computed at once. A constant of the result, never of the machine.
pub(crate) const SPAN: usize = 256;

/// Positions that lie side by side in K.
const GROUP: usize = LANES_MAX;

/// Query heads to a KV head: the most that any known model has is 71 (Falcon 7B).
pub(crate) const HEADS_PER_KV_MAX: usize = 128;

/// (row, head) pairs of a unit of work.
pub(crate) const PAIRS_MAX: usize = HEADS_PER_KV_MAX;

/// Numbers that a span of one (row, head) leaves beside the head's sums: a [`State`].
pub(crate) const STATE_LEN: usize = 2;

/// `y[M, heads * head_dim]`: operands as in [`crate::Cpu::attention`].
pub(crate) struct Attention<'a> {
    pub(crate) query: Query<'a>,
    pub(crate) shape: KvShape,
    pub(crate) blocks: &'a [u32],
    pub(crate) rows: &'a [AttendRow],
    /// Most rows of a unit of work; with the heads of a KV head at most [`PAIRS_MAX`] pairs.
    pub(crate) unit_rows: usize,
    /// Into how many parts the units are dealt.
    pub(crate) parts: usize,
    pub(crate) y: Out<'a>,
    /// Where spans are dealt like rows, their results wait here for [`join_spans`].
    pub(crate) partials: Option<Partials<'a>>,
}

/// The results of spans: `[rows, heads, spans, head_dim + STATE_LEN]`.
pub(crate) struct Partials<'a> {
    pub(crate) numbers: Out<'a>,
    /// Spans of the longest row.
    pub(crate) spans: usize,
}

/// [`tile()`] for one format and each of [`TILE_SIZES`]: functions of their own, because a
/// compiler takes very long over one that holds them all.
pub(crate) type Tiles<E> = [unsafe fn(&Work<'_, E>, &mut [State]); TILE_SIZES.len()];

/// How many pairs tiles have: up to [`tile_pairs_max`].
pub(crate) const TILE_SIZES: [usize; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 14];

/// Rows of one sequence, none seeing less than the one before, with the query heads of one KV
/// head; pairs of them are numbered row after row.
struct Unit {
    rows: Range<usize>,
    kv_head: usize,
}

impl Attention<'_> {
    fn heads_per_kv(&self) -> usize {
        self.query.heads / self.shape.kv_heads
    }

    /// The rows of the unit that ends before `end`.
    fn unit_before(&self, end: usize) -> Range<usize> {
        let mut start = end - 1;
        while start > 0 && end - start < self.unit_rows {
            let (before, row) = (self.rows[start - 1], self.rows[start]);
            if before.blocks_start != row.blocks_start || before.len > row.len {
                break;
            }
            start -= 1;
        }
        start..end
    }

    /// Spans that the last row of a unit sees, which no other row's surpass.
    fn spans(&self, rows: &Range<usize>) -> usize {
        (self.rows[rows.end - 1].len as usize).div_ceil(SPAN)
    }

    /// How many units of work there are.
    pub(crate) fn units(&self) -> usize {
        let (mut units, mut end) = (0, self.rows.len());
        while end > 0 {
            let rows = self.unit_before(end);
            units += if self.partials.is_some() { self.spans(&rows) } else { 1 };
            end = rows.start;
        }
        units * self.shape.kv_heads
    }

    /// Where the sums of a (row, head) go: into y, or to its partial of the span.
    ///
    /// # Safety
    /// No other slice reaches into this (row, head), or this span of it.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "callers keep to disjoint parts")]
    unsafe fn destination(&self, row: usize, head: usize, span: usize) -> &mut [f32] {
        let (pair, dim) = (row * self.query.heads + head, self.shape.head_dim);
        // SAFETY: the caller's promise.
        unsafe {
            match &self.partials {
                None => self.y.slice(pair * dim..(pair + 1) * dim),
                Some(partials) => partials.slot(pair, span, dim),
            }
        }
    }
}

impl Partials<'_> {
    /// # Safety
    /// No other slice reaches into this partial.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "callers keep to disjoint parts")]
    unsafe fn slot(&self, pair: usize, span: usize, dim: usize) -> &mut [f32] {
        let (slot, len) = (pair * self.spans + span, dim + STATE_LEN);
        // SAFETY: the caller's promise.
        unsafe { self.numbers.slice(slot * len..(slot + 1) * len) }
    }
}

/// Computes part `part` of the units.
///
/// # Safety
/// The machine has S's instruction set, the door has checked the shapes and the block ids, and
/// no part is computed twice at once.
#[inline(always)]
pub(crate) unsafe fn attention<S: Scheme>(
    a: &Attention<'_>,
    planes: &Planes<S::E>,
    tiles: &Tiles<S::E>,
    part: usize,
) {
    let (mut unit, mut next) = (0, part);
    let mut end = a.rows.len();
    // From the last row, so that the longest rows of a chunk do not begin when all else is done.
    while end > 0 {
        let rows = a.unit_before(end);
        end = rows.start;
        let spans = a.spans(&rows);
        let dealt = if a.partials.is_some() { spans } else { 1 };
        for i in 0..a.shape.kv_heads * dealt {
            if unit == next {
                next += a.parts;
                let kv_head = i / dealt;
                let mine = if dealt == 1 { 0..spans } else { i % dealt..i % dealt + 1 };
                // SAFETY: the caller's promise; no (unit, span) is in two parts.
                unsafe {
                    attend::<S>(a, planes, tiles, &Unit { rows: rows.clone(), kv_head }, mine)
                };
            }
            unit += 1;
        }
    }
}

/// The given spans of one unit: all of them, or one that is dealt alone.
///
/// # Safety
/// As for [`attention`]; the unit lies within the rows and KV heads.
#[inline(always)]
unsafe fn attend<S: Scheme>(
    a: &Attention<'_>,
    planes: &Planes<S::E>,
    tiles: &Tiles<S::E>,
    unit: &Unit,
    spans: Range<usize>,
) {
    let heads = a.heads_per_kv();
    let mut states = [State::NONE; PAIRS_MAX];
    for span in spans {
        // SAFETY: the caller's promise.
        unsafe { sweep::<S>(a, planes, tiles, unit, span, &mut states) };
        if a.partials.is_some() {
            for (pair, state) in states[..unit.rows.len() * heads].iter().enumerate() {
                let (row, head) = (unit.rows.start + pair / heads, pair % heads);
                // SAFETY: this span of this (row, head) is this call's alone.
                let partial = unsafe { a.destination(row, unit.kv_head * heads + head, span) };
                partial[a.shape.head_dim..].copy_from_slice(&[state.highest, state.total]);
            }
        }
    }
    if a.partials.is_none() {
        for (pair, state) in states[..unit.rows.len() * heads].iter().enumerate() {
            let (row, head) = (unit.rows.start + pair / heads, pair % heads);
            // SAFETY: this (row, head) is this call's alone; the rest is the caller's promise.
            unsafe {
                divide::<S::V>(a.destination(row, unit.kv_head * heads + head, 0), state.total)
            };
        }
    }
}

/// Takes one span of positions into the softmax and the sums of all pairs of a unit that see
/// any of it.
///
/// # Safety
/// As for [`attend`].
#[inline(always)]
unsafe fn sweep<S: Scheme>(
    a: &Attention<'_>,
    planes: &Planes<S::E>,
    tiles: &Tiles<S::E>,
    unit: &Unit,
    span: usize,
    states: &mut [State; PAIRS_MAX],
) {
    let (begin, rows) = (span * SPAN, &a.rows[unit.rows.clone()]);
    let blind = rows.partition_point(|row| row.len as usize <= begin);
    let len = rows[rows.len() - 1].len as usize;
    let places = places::<S::E>(a, unit, begin, (len - begin).min(SPAN));
    let pairs = rows.len() * a.heads_per_kv();
    let mut pair = blind * a.heads_per_kv();
    while pair < pairs {
        let index = tile_index::<S::V>(pairs - pair);
        let size = TILE_SIZES[index];
        let work = Work { a, planes, places: &places, unit, span, pair };
        // SAFETY: the places lie within K and V, all pairs see something of the span, and the
        // rest is the caller's promise.
        unsafe { tiles[index](&work, &mut states[pair..pair + size]) };
        pair += size;
    }
}

/// Which of [`TILE_SIZES`] to take next where `left` pairs are left.
#[inline(always)]
fn tile_index<V: Vector>(left: usize) -> usize {
    let (most, largest) = (tile_pairs_max::<V>(), TILE_SIZES.len() - 1);
    if left >= TILE_SIZES[largest] && most >= TILE_SIZES[largest] {
        return largest;
    }
    // All sizes but the largest follow one another.
    super::even_tile(left, most.min(largest)) - 1
}

/// Most pairs of a tile: two registers of sums to each, and two for what they are computed from.
#[inline(always)]
pub(super) const fn tile_pairs_max<V: Vector>() -> usize {
    V::REGISTERS / 2 - 2
}

/// Where the groups of the positions `begin..begin + count` lie.
#[inline(always)]
fn places<E: KvElem>(
    a: &Attention<'_>,
    unit: &Unit,
    begin: usize,
    count: usize,
) -> [Place; SPAN / GROUP] {
    let mut places = [Place::default(); SPAN / GROUP];
    let table = &a.blocks[a.rows[unit.rows.start].blocks_start as usize..];
    for (i, place) in places[..count.div_ceil(GROUP)].iter_mut().enumerate() {
        let position = begin + i * GROUP;
        let block = table[position / a.shape.block_tokens] as usize;
        let token = position % a.shape.block_tokens;
        *place = Place {
            k: a.shape.k_start::<E>(block, unit.kv_head, token),
            position: a.shape.position(block, unit.kv_head, token),
        };
    }
    places
}
