//! Prices of pushes, from a file.

use std::collections::BTreeMap;

use push::TenantName;
use push::usage::Counts;
use serde::Deserialize;

/// A gigabyte, in bytes.
const GB: f64 = 1e9;

/// The file of prices. A tenant's own prices take precedence over those for all.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Prices {
    currency: String,
    #[serde(flatten)]
    all: Rates,
    #[serde(default)]
    tenant: BTreeMap<TenantName, Rates>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rates {
    per_1000_accepted: Option<f64>,
    per_1000_waited: Option<f64>,
    per_gb: Option<f64>,
    minimum: Option<f64>,
}

/// One line of an invoice.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) what: &'static str,
    pub(super) amount: f64,
}

impl Prices {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let prices: Self = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        let rates = prices.tenant.values().chain([&prices.all]);
        let all = rates
            .flat_map(|rates| [rates.per_1000_accepted, rates.per_1000_waited, rates.per_gb, rates.minimum]);
        if all.flatten().any(|price| !price.is_finite() || price < 0.0) {
            return Err("a price is negative, or no number".into());
        }
        Ok(prices)
    }

    /// Returns the tenants that have prices of their own.
    pub(super) fn tenants(&self) -> impl Iterator<Item = &TenantName> {
        self.tenant.keys()
    }

    pub(super) fn currency(&self) -> &str {
        &self.currency
    }

    /// Returns the lines of a tenant's invoice, each rounded to hundredths.
    pub(super) fn lines(&self, tenant: &TenantName, counts: Counts) -> Vec<Line> {
        let own = self.tenant.get(tenant).copied().unwrap_or_default();
        let rate = |own: Option<f64>, all: Option<f64>| own.or(all).unwrap_or(0.0);
        let line = |what, amount: f64| Line { what, amount: (amount * 100.0).round() / 100.0 };
        let accepted = rate(own.per_1000_accepted, self.all.per_1000_accepted);
        let waited = rate(own.per_1000_waited, self.all.per_1000_waited);
        let mut lines = vec![
            line("Accepted pushes", counts.accepted as f64 / 1000.0 * accepted),
            line("Pushes that waited", counts.waited as f64 / 1000.0 * waited),
            line("Volume", counts.bytes as f64 / GB * rate(own.per_gb, self.all.per_gb)),
        ];
        lines.retain(|line| line.amount > 0.0);
        let rest = rate(own.minimum, self.all.minimum) - total(&lines);
        if rest >= 0.005 {
            lines.push(line("Up to the minimum", rest));
        }
        lines
    }
}

pub(super) fn total(lines: &[Line]) -> f64 {
    // The sum of no numbers is -0.0.
    lines.iter().fold(0.0, |sum, line| sum + line.amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "currency = \"EUR\"\nper_1000_accepted = 0.10\nper_1000_waited = 0.05\nper_gb = 0.5\nminimum = 5\n\
        [tenant.\"example.com\"]\nper_1000_accepted = 1\nminimum = 0\n";

    #[test]
    fn a_tenant_pays_what_it_used_by_its_own_prices_and_no_less_than_the_minimum() {
        let prices = Prices::parse(FILE).unwrap();
        let counts = Counts { accepted: 20_000, waited: 4_000, bytes: 3_000_000_000, ..Counts::default() };
        let pays = |tenant: &str, counts| total(&prices.lines(&tenant.parse().unwrap(), counts));
        assert_eq!(pays("example.org", counts), 5.0);
        assert_eq!(prices.lines(&"example.org".parse().unwrap(), counts).last().unwrap().amount, 1.3);
        assert_eq!(pays("example.com", counts), 21.7);
        assert_eq!(
            (pays("example.org", Counts::default()), pays("example.com", Counts::default())),
            (5.0, 0.0)
        );
        assert_eq!(prices.currency(), "EUR");
        for wrong in
            ["", "currency = 1", "currency = \"EUR\"\nper_push = 1", "currency = \"EUR\"\nper_gb = -1"]
        {
            assert!(Prices::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_misspelt_price_of_a_tenant_is_refused_by_its_name() {
        for wrong in ["per_1000_acepted = 1", "per_gb = 1\nminimun = 0", "currency = \"USD\""] {
            let file = format!("currency = \"EUR\"\nper_gb = 1\n[tenant.\"example.com\"]\n{wrong}\n");
            let name = wrong.lines().last().and_then(|line| line.split(' ').next()).unwrap();
            let error = Prices::parse(&file).unwrap_err();
            assert!(error.contains(&format!("`{name}`")), "{wrong}: {error}");
        }
    }

    #[test]
    fn an_invoice_of_nothing_is_0_00() {
        let prices = Prices::parse("currency = \"EUR\"\nper_gb = 1").unwrap();
        let lines = prices.lines(&"example.com".parse().unwrap(), Counts::default());
        assert_eq!(format!("{:.2}", total(&lines)), "0.00");
    }
}
