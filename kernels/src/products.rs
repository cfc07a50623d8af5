//! The door to products: activations prepared once, then multiplied by packed weights.

use crate::arch::ProductFn;
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
        assert_eq!(y.len(), x.rows * w.rows(), "product: y");
        self.multiply(x, w, &self.plan(x, w, bias, epilogue, y));
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
        assert_eq!(y.len(), x.rows * width, "product: y");
        let product = Product { width, ..self.plan(x, w, bias, Epilogue::SwiGlu, y) };
        self.multiply(x, w, &product);
    }

    /// Whether this machine multiplies bf16 by bf16, so that [`Packing::Bf16Rounded`] rounds, and
    /// attention over bf16.
    pub fn rounds_bf16(&self) -> bool {
        self.bf16_rounded.is_some()
    }

    /// The highest of each strip of outputs, `peaks[M, strips]`, NaN left out and minus infinity
    /// where nothing else is; with `y[M, rows]`, the outputs too. Outputs whose strip is too low
    /// to matter need not be looked at.
    pub fn product_peaks(&self, x: &Inputs, w: &Packed, y: Option<&mut [f32]>, peaks: &mut [f32]) {
        assert_eq!(peaks.len(), x.rows * w.strips(), "product: peaks");
        let (epilogue, y) = match y {
            Some(y) => (Epilogue::Peaks, y),
            None => (Epilogue::PeaksAlone, &mut [][..]),
        };
        assert_eq!(y.len(), if y.is_empty() { 0 } else { x.rows * w.rows() }, "product: y");
        let product = Product { peaks: Out::new(peaks), ..self.plan(x, w, None, epilogue, y) };
        self.multiply(x, w, &product);
    }

    /// One row's outputs of one strip, the very bits of [`Cpu::product`]; returns how many.
    pub fn product_strip(
        &self,
        x: &Inputs,
        row: usize,
        w: &Packed,
        strip: usize,
        y: &mut [f32; STRIP],
    ) -> usize {
        assert!(row < x.rows && strip < w.strips(), "product: row or strip");
        let outputs = (w.rows() - strip * STRIP).min(STRIP);
        let plan = self.plan(x, w, None, Epilogue::Replace, &mut y[..outputs]);
        let product = Product {
            // SAFETY: the row is one of x.
            x: unsafe { plan.x.from(row) },
            rows: 1,
            w: &plan.w[strip * plan.strip_bytes..][..plan.strip_bytes],
            width: outputs,
            ..plan
        };
        // SAFETY: the tables are of an instruction set that this machine has, and the shapes are
        // those of the row and the strip.
        unsafe { self.kernel(x, w)(&product, 0..1) };
        outputs
    }

    /// A product whose outputs are the rows of w.
    fn plan<'a>(
        &self,
        x: &Inputs,
        w: &'a Packed,
        bias: Option<&'a [f32]>,
        epilogue: Epilogue,
        y: &'a mut [f32],
    ) -> Product<'a> {
        assert_eq!((x.cols, x.form), (w.cols(), self.form(w.packing())), "product: x");
        assert!(bias.is_none_or(|bias| bias.len() == w.rows()), "product: bias");
        Product {
            x: x.view(),
            rows: x.rows,
            w: w.bytes(),
            strip_bytes: w.packing().strip_bytes(w.cols()),
            cols: x.stride,
            bias,
            epilogue,
            y: Out::new(y),
            width: w.rows(),
            peaks: Out::new(&mut []),
        }
    }

    fn multiply(&self, x: &Inputs, w: &Packed, product: &Product<'_>) {
        let kernel = self.kernel(x, w);
        self.deal(w.strips(), 1, x.rows * x.stride * w.rows(), |strips| {
            // SAFETY: the tables are of an instruction set that this machine has, the shapes
            // were checked, and no strip is dealt twice.
            unsafe { kernel(product, strips) };
        });
    }

    fn kernel(&self, x: &Inputs, w: &Packed) -> ProductFn {
        match x.form {
            Form::Bf16 => self.bf16_rounded.expect("the form says that there is one"),
            Form::F32 | Form::Q8 { .. } => self.products.get(w.packing()),
        }
    }

    /// The form of activations for a packing.
    fn form(&self, packing: Packing) -> Form {
        match packing {
            Packing::F32 | Packing::Bf16 => Form::F32,
            Packing::Bf16Rounded if self.bf16_rounded.is_some() => Form::Bf16,
            Packing::Bf16Rounded => Form::F32,
            Packing::Q8 if self.products.biased => Form::Q8 { zero: -128 },
            Packing::Q8 => Form::Q8 { zero: 0 },
            Packing::Q4 => Form::Q8 { zero: -8 },
        }
    }
}
