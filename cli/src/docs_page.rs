//! A page of docs/ that a test generates in whole or in part. `UPDATE=1 cargo test -p upwire NAME` writes it.

use std::{env, fs, path::PathBuf};

/// A generated page.
pub(crate) struct DocsPage {
    name: &'static str,
    /// The name of the test.
    test: &'static str,
}

impl DocsPage {
    pub(crate) const fn new(name: &'static str, test: &'static str) -> Self {
        Self { name, test }
    }

    fn path(&self) -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "..", "docs", self.name].iter().collect()
    }

    pub(crate) fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    /// Fails unless the page is as it should be. With `UPDATE`, writes it first.
    pub(crate) fn assert_is(&self, right: &str) {
        if env::var_os("UPDATE").is_some() {
            fs::write(self.path(), right).unwrap();
        }
        let page = self.text();
        let mend = format!("docs/{}: UPDATE=1 cargo test -p upwire {}", self.name, self.test);
        for (is, should) in page.lines().zip(right.lines()) {
            assert_eq!(is, should, "{mend}");
        }
        assert_eq!(page, right, "{mend}");
    }
}
