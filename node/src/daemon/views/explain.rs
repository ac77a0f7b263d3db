//! Explanations, from the ledger's view to the interface's.

use ledger::{explain::Quote, view};
use web::api::{ExplanationView, QuoteView, Time};

/// Shows one explanation.
pub(super) fn view(known: view::ExplanationView) -> ExplanationView {
    let quote = |quote: Quote| QuoteView {
        place: quote.place,
        left: quote.left,
        right: quote.right,
        variation: quote.variation,
    };
    ExplanationView {
        id: known.id,
        left: known.left,
        right: known.right,
        left_operators: known.left_operators,
        right_operators: known.right_operators,
        ended: known.ended.map(Time::from),
        text: known.text,
        html: known.html,
        quotes: known.quotes.into_iter().map(quote).collect(),
        summary: known.summary,
    }
}
