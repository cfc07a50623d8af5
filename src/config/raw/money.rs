//! Prices and the ledger, as typed.

use super::section::Section;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawLedger {
    pub path: Option<String>,
    pub utc_offset: Option<String>,
}

/// The inline table `price` of a cloud row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawPrice {
    pub input_usd_per_mtok: Option<f64>,
    pub output_usd_per_mtok: Option<f64>,
    pub cached_usd_per_mtok: Option<f64>,
    pub tier: Option<String>,
}

impl RawLedger {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        self.path = section.take("path");
        self.utc_offset = section.take("utc_offset");
    }
}

impl RawPrice {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        self.input_usd_per_mtok = section.take("input_usd_per_mtok");
        self.output_usd_per_mtok = section.take("output_usd_per_mtok");
        self.cached_usd_per_mtok = section.take("cached_usd_per_mtok");
        self.tier = section.take("tier");
    }
}
