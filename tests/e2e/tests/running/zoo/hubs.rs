//! Hubs and CDNs that mean ill, or are not well: none of it is the model's fault.

use localnet::http::Fault;

use super::specimen::Specimen;

pub(crate) fn hubs() -> Vec<Specimen> {
    let hub = |name, fault| Specimen::new(name).trouble(false, fault);
    let cdn = |name, fault| Specimen::new(name).trouble(true, fault);
    vec![
        hub("hub-stalls", Fault::Stall),
        hub("hub-stalls-midway", Fault::StallMidway),
        hub("hub-trickles", Fault::Slow),
        hub("hub-breaks-off", Fault::Cut),
        hub("hub-never-ends", Fault::Endless),
        hub("hub-sends-half-of-what-it-lists", Fault::LyingLength),
        hub("hub-sends-other-bytes", Fault::WrongBytes),
        hub("hub-redirects-for-ever", Fault::RedirectLoop),
        hub("hub-redirects-to-plain-http", Fault::Downgrade),
        hub("hub-sends-a-page", Fault::Html),
        hub("hub-fails", Fault::ServerError),
        hub("hub-refuses", Fault::Gated),
        hub("hub-names-another-content", Fault::WrongEtag),
        cdn("cdn-stalls", Fault::Stall),
        cdn("cdn-stalls-midway", Fault::StallMidway),
        cdn("cdn-trickles", Fault::Slow),
        cdn("cdn-breaks-off", Fault::Cut),
        cdn("cdn-never-ends", Fault::Endless),
        cdn("cdn-sends-half-of-what-is-listed", Fault::LyingLength),
        cdn("cdn-sends-other-bytes", Fault::WrongBytes),
        cdn("cdn-sends-other-bytes-each-time", Fault::ChangingBody),
        cdn("cdn-redirects-for-ever", Fault::RedirectLoop),
        cdn("cdn-sends-a-page", Fault::Html),
    ]
}
