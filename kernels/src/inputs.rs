//! Activations in the form in which a product reads them.

use half::bf16;

use crate::memory::Pages;
use crate::packed::GROUP;

/// How rows of activations are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    F32,
    Bf16,
    /// Whole numbers from -127 to 127, with a scale for each group of columns, and `zero` times
    /// the group's sum: what stored weights are more than their values.
    Q8 {
        zero: i32,
    },
}

/// RMS normalisation of rows on their way into a product.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// `[cols]`
    pub weight: &'a [f32],
    pub eps: f32,
}

/// Rows that [`crate::Cpu::prepare`] has put into the form that a packing asks for. Allocated
/// once for the largest product.
pub struct Inputs {
    pub(crate) form: Form,
    pub(crate) rows: usize,
    /// Columns of the matrix they are meant for.
    pub(crate) cols: usize,
    /// Columns of a row in `numbers`, the padding included.
    pub(crate) stride: usize,
    /// `[rows, stride]` of f32, bf16 or i8.
    numbers: Pages,
    /// `[rows, groups]`
    scales: Vec<f32>,
    /// `[rows, groups]`
    zeros: Vec<i32>,
    /// `[rows, cols]`: normed rows on their way.
    normed: Vec<f32>,
}

impl Inputs {
    /// Room for `rows_max` rows of up to `cols_max` columns.
    pub fn new(rows_max: usize, cols_max: usize) -> Inputs {
        let stride = cols_max.next_multiple_of(GROUP);
        let groups = rows_max * stride / GROUP;
        Inputs {
            form: Form::F32,
            rows: 0,
            cols: 0,
            stride: 0,
            numbers: Pages::zeroed(rows_max * stride * size_of::<f32>()),
            scales: vec![0.0; groups],
            zeros: vec![0; groups],
            normed: vec![0.0; rows_max * cols_max],
        }
    }

    /// Sets form and shape; the numbers are to be filled.
    pub(crate) fn reset(&mut self, form: Form, rows: usize, cols: usize, stride: usize) {
        let width = match form {
            Form::F32 => 4,
            Form::Bf16 => 2,
            Form::Q8 { .. } => 1,
        };
        assert!(rows * stride * width <= self.numbers.len(), "prepare: more rows than room");
        assert!(rows * stride <= self.scales.len() * GROUP, "prepare: more groups than room");
        (self.form, self.rows, self.cols, self.stride) = (form, rows, cols, stride);
    }

    /// Where the rows' numbers go, and room for `normed` numbers on their way there.
    pub(crate) fn parts(&mut self, normed: usize) -> (InputParts, &mut [f32]) {
        let parts = InputParts {
            numbers: self.numbers.as_mut_ptr(),
            scales: self.scales.as_mut_ptr(),
            zeros: self.zeros.as_mut_ptr(),
        };
        (parts, &mut self.normed[..normed])
    }

    pub(crate) fn view(&self) -> InputView {
        InputView {
            form: self.form,
            numbers: self.numbers.as_ptr(),
            scales: self.scales.as_ptr(),
            zeros: self.zeros.as_ptr(),
            stride: self.stride,
            groups: match self.form {
                Form::Q8 { .. } => self.stride / GROUP,
                Form::F32 | Form::Bf16 => 0,
            },
        }
    }
}

/// The memory of [`Inputs`], shared by the threads that each fill some rows.
#[derive(Clone, Copy)]
pub(crate) struct InputParts {
    pub(crate) numbers: *mut u8,
    pub(crate) scales: *mut f32,
    pub(crate) zeros: *mut i32,
}

// SAFETY: whoever shares them keeps to disjoint rows.
unsafe impl Sync for InputParts {}

/// The memory of [`Inputs`], to be read.
#[derive(Clone, Copy)]
pub(crate) struct InputView {
    form: Form,
    numbers: *const u8,
    scales: *const f32,
    zeros: *const i32,
    stride: usize,
    groups: usize,
}

// SAFETY: it is read only, and a product borrows the inputs while it runs.
unsafe impl Sync for InputView {}

impl InputView {
    /// The rows from `row` on.
    ///
    /// # Safety
    /// The inputs have this row.
    pub(crate) unsafe fn from(self, row: usize) -> InputView {
        let width = match self.form {
            Form::F32 => size_of::<f32>(),
            Form::Bf16 => size_of::<bf16>(),
            Form::Q8 { .. } => size_of::<i8>(),
        };
        // SAFETY: the row is the caller's promise.
        unsafe {
            InputView {
                numbers: self.numbers.add(row * self.stride * width),
                scales: self.scales.add(row * self.groups),
                zeros: self.zeros.add(row * self.groups),
                ..self
            }
        }
    }

    /// # Safety
    /// The inputs are of form f32 and have this row.
    #[inline(always)]
    pub(crate) unsafe fn f32(&self, row: usize) -> *const f32 {
        // SAFETY: the row is the caller's promise.
        unsafe { self.numbers.cast::<f32>().add(row * self.stride) }
    }

    /// # Safety
    /// The inputs are of form bf16 and have this row.
    #[cfg(any(target_arch = "x86_64", test))]
    #[inline(always)]
    pub(crate) unsafe fn bf16(&self, row: usize) -> *const u8 {
        // SAFETY: the row is the caller's promise.
        unsafe { self.numbers.add(row * self.stride * size_of::<bf16>()) }
    }

    /// The row's numbers, scales and zeros.
    ///
    /// # Safety
    /// The inputs are of a quantised form and have this row.
    #[inline(always)]
    pub(crate) unsafe fn q8(&self, row: usize) -> (*const u8, *const f32, *const i32) {
        // SAFETY: the row is the caller's promise.
        unsafe {
            (
                self.numbers.add(row * self.stride),
                self.scales.add(row * self.groups),
                self.zeros.add(row * self.groups),
            )
        }
    }
}
