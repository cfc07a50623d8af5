//! The door to products: activations prepared once, then multiplied by packed weights.

use crate::cpu::Cpu;
use crate::inputs::{Form, Inputs, Norm};
use crate::ops::{Epilogue, Prepare, Product};
use crate::out::Out;
use crate::packed::{GateUp, Packed, Packing, STRIP};
use crate::shape::Write;

/// What preparing a number costs, in multiplications.
const PREPARE_COST: usize = 16;

impl Cpu {
    /// Brings M rows, `x[M, cols]`, into the form for products with `w` or any other matrix of
    /// the same packing and columns; with a norm, after that.
    pub fn prepare(&self, inputs: &mut Inputs, x: &[f32], norm: Option<Norm<'_>>, w: &Packed) {
        let cols = w.cols();
        assert!(x.len().is_multiple_of(cols), "prepare: x");
        assert!(norm.is_none_or(|norm| norm.weight.len() == cols), "prepare: norm");
        let (rows, form) = (x.len() / cols, self.form(w.packing()));
        let stride = w.packing().padded_cols(cols);
        inputs.reset(form, rows, cols, stride);
        let (out, normed) = inputs.parts(if norm.is_some() { x.len() } else { 0 });
        let prepare = Prepare { x, cols, norm, form, stride, out, normed: Out::new(normed) };
        self.deal(rows, 1, PREPARE_COST * x.len(), |rows| {
            // SAFETY: the table is of an instruction set that this machine has, the shapes were
            // checked, and no row is dealt twice.
            unsafe { (self.table.prepare)(&prepare, rows) };
        });
    }

    /// `y[M, rows] (+)= x · wᵀ + bias[rows]` of M prepared rows.
    pub fn product(
        &self,
        x: &Inputs,
        w: &Packed,
        bias: Option<&[f32]>,
        write: Write,
        y: &mut [f32],
    ) {
        let epilogue = match write {
            Write::Replace => Epilogue::Replace,
            Write::Add => Epilogue::Add,
        };
        self.multiply(x, w, bias, epilogue, y, w.rows());
    }

    /// `y[M, width] = silu(x · gateᵀ) * (x · upᵀ)` of M prepared rows, where `w` holds the rows
    /// of both as [`GateUp`] says, and `bias` those of the packed rows.
    pub fn product_swiglu(
        &self,
        x: &Inputs,
        w: &Packed,
        bias: Option<&[f32]>,
        y: &mut [f32],
        width: usize,
    ) {
        assert_eq!(w.rows(), GateUp::packed_rows(width), "product: gate and up");
        self.multiply(x, w, bias, Epilogue::SwiGlu, y, width);
    }

    /// Whether this machine multiplies bf16 by bf16, so that [`Packing::Bf16Rounded`] rounds.
    pub fn rounds_bf16(&self) -> bool {
        self.bf16_rounded.is_some()
    }

    fn multiply(
        &self,
        x: &Inputs,
        w: &Packed,
        bias: Option<&[f32]>,
        epilogue: Epilogue,
        y: &mut [f32],
        width: usize,
    ) {
        assert_eq!((x.cols, x.form), (w.cols(), self.form(w.packing())), "product: x");
        assert_eq!(y.len(), x.rows * width, "product: y");
        assert!(bias.is_none_or(|bias| bias.len() == w.rows()), "product: bias");
        let kernel = match x.form {
            Form::Bf16 => self.bf16_rounded.expect("the form says that there is one"),
            Form::F32 | Form::Q8 { .. } => self.products.get(w.packing()),
        };
        let product = Product {
            x: x.view(),
            rows: x.rows,
            w: w.bytes(),
            strip_bytes: w.packing().strip_bytes(w.cols()),
            cols: x.stride,
            bias,
            epilogue,
            y: Out::new(y),
            width,
        };
        self.deal(w.rows().div_ceil(STRIP), 1, x.rows * x.stride * w.rows(), |strips| {
            // SAFETY: the tables are of an instruction set that this machine has, the shapes
            // were checked, and no strip is dealt twice.
            unsafe { kernel(&product, strips) };
        });
    }

    /// The form of activations for a packing.
    fn form(&self, packing: Packing) -> Form {
        match packing {
            Packing::F32 | Packing::Bf16 => Form::F32,
            Packing::Bf16Rounded if self.bf16_rounded.is_some() => Form::Bf16,
            Packing::Bf16Rounded => Form::F32,
            Packing::Q8(group) if self.products.biased => Form::Q8 { group, zero: -128 },
            Packing::Q8(group) => Form::Q8 { group, zero: 0 },
            Packing::Q4(group) => Form::Q8 { group, zero: -8 },
        }
    }
}
