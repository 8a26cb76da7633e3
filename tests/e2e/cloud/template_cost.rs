//! The page on costs says what the prices and the counted units come to.

use std::env;
use std::fs;

use e2e::prices;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/aws/cost.md");
const BEGIN: &str = "<!-- computed: UPDATE=1 cargo test -p e2e --test e2e -- template_cost -->\n";
const END: &str = "<!-- computed until here -->\n";

#[test]
fn the_page_on_costs_says_what_the_units_cost() {
    let page = fs::read_to_string(PAGE).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    let right = format!("{head}{BEGIN}\n{}\n{END}{tail}", prices::tables());
    if env::var_os("UPDATE").is_some() {
        fs::write(PAGE, &right).unwrap();
    }
    assert_eq!(fs::read_to_string(PAGE).unwrap(), right);
}

/// The numbers that a review of AWS's price lists came to.
#[test]
fn the_computation_agrees_with_what_was_computed_elsewhere() {
    let near = |computed: f64, known: f64| (computed / known - 1.0).abs() < 0.05;
    assert!(near(prices::delivered(1.0), 1.47), "{}", prices::delivered(1.0));
    assert!(near(prices::delivered(10.0), 0.76), "{}", prices::delivered(10.0));
    let (least, most) = (prices::transfer(400), prices::transfer(4096));
    assert!((0.12..0.16).contains(&least) && (0.5..0.65).contains(&most), "{least} {most}");
    for body in [400, 1024] {
        assert!((3.0..9.0).contains(&prices::dropped(body)), "{}", prices::dropped(body));
    }
}
