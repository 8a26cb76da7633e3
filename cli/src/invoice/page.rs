//! A page of invoices: one HTML file, with a chart for each tenant.

use anyhow::anyhow;
use plotters::prelude::*;
use push::TenantName;
use push::usage::Counts;

use super::prices::{Prices, total};
use super::sums::{Sum, Sums};

/// The size of a chart, in pixels. It scales with the page.
const CHART: (u32, u32) = (900, 260);
/// The label and the colour of a series, and its count for a day.
type Series = (&'static str, RGBColor, fn(&Counts) -> u64);

/// The bars of each day in a chart.
const SERIES: [Series; 3] = [
    ("delivered", RGBColor(38, 120, 78), |counts| counts.delivered),
    ("waited", RGBColor(214, 150, 30), |counts| counts.waited),
    ("expired", RGBColor(176, 52, 52), |counts| counts.expired),
];
const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;color:#222;margin:0 auto;max-width:60rem;padding:2rem}\
section{break-after:page;margin-bottom:4rem}h1{font-size:1.6rem;margin:0}h2{font-size:1rem;font-weight:400;margin:0 0 1rem}\
table{border-collapse:collapse;width:100%;margin:1rem 0}th,td{padding:.3rem .6rem;border-bottom:1px solid #ddd;text-align:right}\
th:first-child,td:first-child{text-align:left}tfoot td{font-weight:600;border-top:2px solid #222}svg{width:100%;height:auto}";

/// Returns the page.
pub(super) fn page(sums: &Sums, prices: Option<&Prices>) -> anyhow::Result<String> {
    let month = sums.month;
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Usage in {month}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\n"
    );
    for (name, sum) in &sums.tenants {
        page += &format!("<section><h1>{}</h1><h2>Usage in {month}</h2>\n", escaped(name.as_str()));
        page += &chart(sum)?;
        page += &counts_table(sum);
        if let Some(prices) = prices {
            page += &invoice_table(name, sum, prices);
        }
        page += "</section>\n";
    }
    if sums.tenants.is_empty() {
        page += "<p>There is no tenant in this month.</p>\n";
    }
    Ok(page + "</body></html>\n")
}

/// Draws the days of the month, with a bar for each series.
fn chart(sum: &Sum) -> anyhow::Result<String> {
    let mut svg = String::new();
    let failed = |error: &dyn std::fmt::Display| anyhow!("the chart of a tenant cannot be drawn: {error}");
    {
        let area = SVGBackend::with_string(&mut svg, CHART).into_drawing_area();
        let most = sum.days.iter().flat_map(|day| SERIES.map(|(_, _, of)| of(day))).max().unwrap_or(0);
        let days = sum.days.len() as f64;
        let mut chart = ChartBuilder::on(&area)
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(64)
            .build_cartesian_2d(0.5..days + 0.5, 0.0..(most.max(1) as f64 * 1.1))
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(sum.days.len())
            .x_label_formatter(&|day| format!("{day:.0}"))
            .y_label_formatter(&|count| format!("{count:.0}"))
            .draw()
            .map_err(|error| failed(&error))?;
        let width = 0.8 / SERIES.len() as f64;
        for (place, (label, colour, of)) in SERIES.into_iter().enumerate() {
            let bars = sum.days.iter().enumerate().map(|(day, counts)| {
                let left = day as f64 + 0.6 + width * place as f64;
                Rectangle::new([(left, 0.0), (left + width, of(counts) as f64)], colour.filled())
            });
            chart
                .draw_series(bars)
                .map_err(|error| failed(&error))?
                .label(label)
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled()));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .position(SeriesLabelPosition::UpperRight)
            .draw()
            .map_err(|error| failed(&error))?;
        area.present().map_err(|error| failed(&error))?;
    }
    Ok(svg)
}

fn counts_table(sum: &Sum) -> String {
    let row = |name: &str, counts: &Counts| {
        let Counts { accepted, delivered, waited, expired, dropped, bytes, registrations, .. } = counts;
        let Counts { read_units, write_units, .. } = counts;
        format!(
            "<tr><td>{}</td><td>{accepted}</td><td>{delivered}</td><td>{waited}</td><td>{expired}</td>\
             <td>{dropped}</td><td>{bytes}</td><td>{registrations}</td>\
             <td>{read_units}</td><td>{write_units}</td></tr>\n",
            escaped(name)
        )
    };
    let domains: String = sum.domains.iter().map(|(domain, counts)| row(domain, counts)).collect();
    format!(
        "<table><thead><tr><th>Domain</th><th>Accepted</th><th>Delivered</th><th>Waited</th><th>Expired</th>\
         <th>Dropped</th><th>Bytes</th><th>Registrations</th><th>Read units</th>\
         <th>Write units</th></tr></thead>\n<tbody>{domains}</tbody>\
         <tfoot>{}</tfoot></table>\n",
        row("All", &sum.all)
    )
}

fn invoice_table(name: &TenantName, sum: &Sum, prices: &Prices) -> String {
    let lines = prices.lines(name, sum.all);
    let row = |what: &str, amount: f64| format!("<tr><td>{what}</td><td>{amount:.2}</td></tr>\n");
    let rows: String = lines.iter().map(|line| row(line.what, line.amount)).collect();
    format!(
        "<table><thead><tr><th>Invoice</th><th>{}</th></tr></thead>\n<tbody>{rows}</tbody><tfoot>{}</tfoot></table>\n",
        escaped(prices.currency()),
        row("Total", total(&lines))
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
