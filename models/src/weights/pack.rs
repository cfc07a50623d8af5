//! From a source's tensors to packed matrices, a slab of rows at a time on every CPU, or from
//! the cache.

use std::ops::Range;

use candle_core::{DType, Tensor};
use kernels::{Arena, GateUp, Packed, Packing, STRIP, Strips};

use super::deal::{deal, threads};
use super::{
    LayerTensor, LayerWeights, Linear, Projection, TensorName, WeightFormat, WeightSource, Weights,
};
use crate::cache::Reader;
use crate::config::DecoderConfig;
use crate::error::LoadError;

/// Bytes of f32 numbers that are in memory unpacked at one time, on all threads together. Small
/// beside the smallest model, so that loading never needs much more than the packed weights;
/// large beside a read's cost.
const SLABS_BYTES_MAX: usize = 1 << 20;

/// Turns a source's tensors into packed ones.
pub(super) struct Packer<'a> {
    pub(super) config: &'a DecoderConfig,
    pub(super) source: &'a dyn WeightSource,
    pub(super) format: WeightFormat,
    /// Matrices that were packed before; None once it had something wrong.
    pub(super) cached: Option<Reader>,
    /// Where the matrices lie.
    pub(super) arena: Arena,
}

/// A tensor inside a packed matrix.
struct Piece {
    name: TensorName,
    /// The tensor's own.
    rows: usize,
    place: Place,
}

/// Where the rows of a tensor go.
#[derive(Clone, Copy)]
enum Place {
    /// One after the other, the first one there.
    From(usize),
    /// Interleaved with the other half of the gate.
    Half(GateUp),
}

impl Place {
    fn packed_row(self, row: usize) -> usize {
        match self {
            Place::From(first) => first + row,
            Place::Half(half) => half.packed_row(row),
        }
    }

    /// Which of a tensor's `rows` lie in those packed rows, which begin a strip.
    fn rows_in(self, packed: Range<usize>, rows: usize) -> Range<usize> {
        let (start, end) = match self {
            Place::From(first) => {
                (packed.start.saturating_sub(first), packed.end.saturating_sub(first))
            }
            Place::Half(_) => {
                let half = STRIP / 2;
                (packed.start / STRIP * half, packed.end.div_ceil(STRIP) * half)
            }
        };
        start.min(rows)..end.min(rows)
    }
}

impl Packer<'_> {
    /// The order of the matrices is the order of the cache.
    pub(super) fn weights(&mut self) -> Result<Weights, LoadError> {
        self.refuse_unused_biases()?;
        let head = self.format.head;
        Ok(Weights {
            format: self.format,
            embedding: self.matrix(&self.stacked(&[TensorName::Embedding]), head)?,
            layers: (0..self.config.layers).map(|i| self.layer(i)).collect::<Result<_, _>>()?,
            final_norm: self.vector(TensorName::FinalNorm)?,
            head: match self.config.tied {
                true => None,
                false => Some(self.matrix(&self.stacked(&[TensorName::Head]), head)?),
            },
        })
    }

    fn layer(&mut self, i: usize) -> Result<LayerWeights, LoadError> {
        use Projection::{Down, Gate, K, O, Q, Up, V};
        Ok(LayerWeights {
            attention_norm: self.vector(TensorName::Layer(i, LayerTensor::AttentionNorm))?,
            qkv: self.linear(i, &[Q, K, V])?,
            o: self.linear(i, &[O])?,
            mlp_norm: self.vector(TensorName::Layer(i, LayerTensor::MlpNorm))?,
            gate_up: self.linear(i, &[Gate, Up])?,
            down: self.linear(i, &[Down])?,
        })
    }

    /// Projections of the same input, in one matrix, with their biases.
    fn linear(&mut self, layer: usize, projections: &[Projection]) -> Result<Linear, LoadError> {
        let pieces = |tensor: fn(Projection) -> LayerTensor| {
            let names: Vec<_> =
                projections.iter().map(|&p| TensorName::Layer(layer, tensor(p))).collect();
            match projections {
                [Projection::Gate, Projection::Up] => self.interleaved(&names),
                _ => self.stacked(&names),
            }
        };
        let weights = pieces(LayerTensor::Weight);
        let biases = projections
            .iter()
            .all(|&projection| self.config.has_bias(projection))
            .then(|| pieces(LayerTensor::Bias));
        let packed = self.matrix(&weights, self.format.body)?;
        let bias = biases.map(|biases| self.bias(&biases, packed.rows())).transpose()?;
        Ok(Linear { packed, bias })
    }

    fn stacked(&self, names: &[TensorName]) -> Vec<Piece> {
        let mut first = 0;
        let piece = |&name: &TensorName| {
            let rows = self.config.shape(name)[0];
            let place = Place::From(first);
            first += rows;
            Piece { name, rows, place }
        };
        names.iter().map(piece).collect()
    }

    fn interleaved(&self, names: &[TensorName]) -> Vec<Piece> {
        let halves = names.iter().zip([GateUp::Gate, GateUp::Up]);
        let piece = |(&name, half)| {
            let rows = self.config.shape(name)[0];
            Piece { name, rows, place: Place::Half(half) }
        };
        halves.map(piece).collect()
    }

    /// Nothing is allocated before every shape is known to be what the config asks for, so a
    /// config cannot ask for more memory than its file holds.
    fn matrix(&mut self, pieces: &[Piece], packing: Packing) -> Result<Packed, LoadError> {
        for piece in pieces {
            self.check_shape(piece.name)?;
        }
        let cols = self.config.shape(pieces[0].name)[1];
        let rows = packed_rows(pieces);
        if let Some(cached) = &mut self.cached {
            let mut packed = Packed::zeroed_in(&self.arena, packing, rows, cols);
            if cached.read(packed.bytes_mut()) {
                return Ok(packed);
            }
            self.cached = None;
        }
        let mut packed = Packed::zeroed_in(&self.arena, packing, rows, cols);
        let slab = (SLABS_BYTES_MAX / threads() / (4 * cols)).max(1);
        let strips = (slab / STRIP).max(1);
        let parts: Vec<Strips<'_>> = packed.strips_mut(strips).collect();
        deal(parts.into_iter(), |mut part| {
            pieces.iter().try_for_each(|piece| self.fill(&mut part, piece, slab))
        })?;
        Ok(packed)
    }

    /// Packs what a piece has in these strips, at most `slab` rows at a time.
    fn fill(&self, part: &mut Strips<'_>, piece: &Piece, slab: usize) -> Result<(), LoadError> {
        let rows = piece.place.rows_in(part.rows(), piece.rows);
        for start in rows.clone().step_by(slab) {
            let rows = start..(start + slab).min(rows.end);
            let numbers = self.f32s(piece.name, rows.clone())?;
            for (row, numbers) in rows.clone().zip(numbers.chunks_exact(numbers.len() / rows.len()))
            {
                part.set(piece.place.packed_row(row), numbers);
            }
        }
        Ok(())
    }

    fn vector(&self, name: TensorName) -> Result<Vec<f32>, LoadError> {
        let pieces = self.stacked(&[name]);
        self.bias(&pieces, pieces[0].rows)
    }

    /// In the order of the packed rows; the rows of no tensor are 0.
    fn bias(&self, pieces: &[Piece], rows: usize) -> Result<Vec<f32>, LoadError> {
        for piece in pieces {
            self.check_shape(piece.name)?;
        }
        let mut bias = vec![0.0; rows];
        for piece in pieces {
            let numbers = self.f32s(piece.name, 0..piece.rows)?;
            for (row, x) in numbers.into_iter().enumerate() {
                bias[piece.place.packed_row(row)] = x;
            }
        }
        Ok(bias)
    }

    fn f32s(&self, name: TensorName, rows: Range<usize>) -> Result<Vec<f32>, LoadError> {
        let len = rows.len() * self.config.shape(name)[1..].iter().product::<usize>();
        let widen = |tensor: Tensor| tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1();
        let numbers: Vec<f32> = widen(self.source.read(name, rows)?)
            .map_err(|source| LoadError::Convert { name: self.source.spelling(name), source })?;
        assert_eq!(numbers.len(), len, "a source answered with other rows than asked for");
        Ok(numbers)
    }

    fn check_shape(&self, name: TensorName) -> Result<(), LoadError> {
        let expected = self.config.shape(name);
        let Some(found) = self.source.shape(name) else {
            return Err(LoadError::TensorMissing(self.source.spelling(name)));
        };
        if found != expected {
            let (name, found) = (self.source.spelling(name), found.to_vec());
            return Err(LoadError::TensorShape { name, expected, found });
        }
        Ok(())
    }

    /// A bias in the file that the config does not mention would be dropped in silence.
    fn refuse_unused_biases(&self) -> Result<(), LoadError> {
        for layer in 0..self.config.layers {
            for projection in Projection::ALL {
                let name = TensorName::Layer(layer, LayerTensor::Bias(projection));
                if !self.config.has_bias(projection) && self.source.shape(name).is_some() {
                    return Err(LoadError::TensorUnexpected(self.source.spelling(name)));
                }
            }
        }
        Ok(())
    }
}

fn packed_rows(pieces: &[Piece]) -> usize {
    match pieces[0].place {
        Place::From(_) => pieces.iter().map(|piece| piece.rows).sum(),
        Place::Half(_) => GateUp::packed_rows(pieces[0].rows),
    }
}
