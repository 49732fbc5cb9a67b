//! Chat templates that mean ill: loops, recursion, strings that grow, filters, widths of formats.

use super::specimen::Specimen;

/// One expression or statement each.
const ONE_LINERS: [(&str, &str); 38] = [
    (
        "template-loop-of-a-billion",
        "{% for a in range(10**9) %}x{% endfor %}",
    ),
    (
        "template-loops-in-loops",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    ),
    (
        "template-list-of-a-billion",
        "{{ range(1000000000)|list|length }}",
    ),
    (
        "template-text-times-a-trillion",
        "{{ 'a' * 1000000000000 }}",
    ),
    (
        "template-text-times-a-billion",
        "{{ ('a' * 1000000000)|length }}",
    ),
    (
        "template-list-times-a-billion",
        "{{ ([0] * 1000000000)|length }}",
    ),
    ("template-text-of-8-mb", "{{ 'a' * 8000000 }}"),
    ("template-text-of-7-mb-in-words", "{{ 'ab cd ' * 1200000 }}"),
    ("template-centered", "{{ 'a'|center(10000000000)|length }}"),
    ("template-format-of-100-gb", "{{ '%99999999999d' % 1 }}"),
    (
        "template-format-by-a-filter",
        "{{ '%99999999999d'|format(1) }}",
    ),
    (
        "template-format-by-a-method",
        "{{ '{:99999999999}'.format(1) }}",
    ),
    ("template-format-of-digits", "{{ '%.99999999999f' % 1 }}"),
    ("template-power-of-a-power", "{{ 10**10**10 }}"),
    ("template-shifted", "{{ (2**127) * (2**127) }}"),
    (
        "template-lists-sorted",
        "{{ (range(99999)|list|sort(reverse=true)|sort|sort)|length }}",
    ),
    (
        "template-batches-and-slices",
        "{{ range(99999)|batch(1)|list|length }}{{ range(99999)|slice(99999)|list|length }}",
    ),
    (
        "template-unique",
        "{{ range(99999)|map('string')|unique|list|length }}",
    ),
    ("template-random-words", "{{ lipsum(1000000) }}"),
    ("template-random", "{{ [1, 2]|random }}"),
    ("template-self", "{{ self }}{{ cycler }}{{ joiner }}"),
    (
        "template-out-of-the-sandbox",
        "{{ ''.__class__.__mro__ }}{{ messages.__init__.__globals__ }}",
    ),
    ("template-out-by-a-filter", "{{ ''|attr('__class__') }}"),
    (
        "template-out-by-a-format",
        "{{ '{0.__class__}'.format(messages) }}",
    ),
    (
        "template-configuration",
        "{{ config }}{{ debug() }}{{ environ }}",
    ),
    ("template-includes-a-file", "{% include '/etc/passwd' %}"),
    (
        "template-imports",
        "{% import 'os' as os %}{{ os.system('id') }}",
    ),
    ("template-includes-itself", "{% include 'chat_template' %}"),
    ("template-extends-itself", "{% extends 'chat_template' %}"),
    (
        "template-recursive-loop",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    ),
    (
        "template-recursive-macro",
        "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    ),
    (
        "template-callers",
        "{% macro a(x) %}{{ caller() }}{% endmacro %}{% call a(1) %}{% call a(1) %}x{% endcall %}{% endcall %}",
    ),
    ("template-split", "{{ ('a ' * 4000000).split(' ')|length }}"),
    ("template-time", "{{ strftime_now('%9999999999Y' * 1000) }}"),
    (
        "template-every-character",
        "{% for m in messages %}{% for c in m.content %}{{ c }}{% endfor %}{% endfor %}",
    ),
    ("template-refuses", "{{ raise_exception('no thanks') }}"),
    ("template-unfinished", "{% for m in messages %}"),
    (
        "template-of-the-terminal",
        "{{ raise_exception('\u{1b}[2J\u{1b}]0;owned\u{7}') }}",
    ),
];

/// What a value becomes in each of sixty rounds.
const GROWTH: [(&str, &str, &str); 11] = [
    (
        "template-doubles-a-text",
        "'aaaaaaaaaaaaaaaa'",
        "ns.x ~ ns.x",
    ),
    (
        "template-adds-a-text-to-itself",
        "'aaaaaaaaaaaaaaaa'",
        "ns.x + ns.x",
    ),
    ("template-doubles-a-list", "[1]", "ns.x + ns.x"),
    ("template-nests-a-list", "[1]", "[ns.x, ns.x]"),
    (
        "template-replaces",
        "'aaaaaaaa'",
        "ns.x|replace('a', 'aaaaaaaaaaaaaaaa')",
    ),
    (
        "template-replaces-by-a-method",
        "'aaaaaaaa'",
        "ns.x.replace('a', 'aaaaaaaaaaaaaaaa')",
    ),
    (
        "template-joins",
        "'aaaaaaaa'",
        "[1, 2, 3, 4, 5, 6, 7, 8]|join(ns.x)",
    ),
    (
        "template-indents",
        "'a\\n' * 1000",
        "(ns.x ~ ns.x)|indent(1000)",
    ),
    ("template-quotes", "'\\\\'", "ns.x|tojson"),
    (
        "template-escapes-for-addresses",
        "'%%%%%%%%'",
        "ns.x|urlencode",
    ),
    (
        "template-squares-a-number",
        "99999999999999999999",
        "ns.x * ns.x",
    ),
];

pub(crate) fn templates() -> Vec<Specimen> {
    let of = |name: &str, template: &str| Specimen::new(name).template(template);
    let mut all: Vec<Specimen> = ONE_LINERS
        .iter()
        .map(|(name, template)| of(name, template))
        .collect();
    all.extend(GROWTH.iter().map(|(name, start, grown)| {
        let template = format!(
            "{{% set ns = namespace(x={start}) %}}{{% for _ in range(60) %}}\
             {{% set ns.x = {grown} %}}{{% endfor %}}{{{{ ns.x|length }}}}"
        );
        of(name, &template)
    }));
    all.extend([
        of(
            "template-200000-minus-signs",
            &format!("{{{{ {}1 }}}}", "-".repeat(200_000)),
        ),
        of(
            "template-100000-brackets",
            &format!("{{{{ {} }}}}", "(".repeat(100_000)),
        ),
        of(
            "template-20000-ifs",
            &format!(
                "{}x{}",
                "{% if 1 %}".repeat(20_000),
                "{% endif %}".repeat(20_000)
            ),
        ),
        of(
            "template-100000-attributes",
            &format!("{{{{ messages{} }}}}", ".a".repeat(100_000)),
        ),
        of(
            "template-50000-filters",
            &format!("{{{{ 'a'{} }}}}", "|upper".repeat(50_000)),
        ),
        of("template-of-two-megabytes", &" ".repeat(2 << 20)),
        of("template-of-nothing", ""),
    ]);
    all
}
