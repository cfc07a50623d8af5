//! What a row of each family of providers is made of.

pub mod aws;
