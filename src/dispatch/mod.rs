//! Where a request runs: here, in a cloud, or nowhere.
