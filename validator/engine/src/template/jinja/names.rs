//! Which names a part of a template asks for.

use super::ast::{Body, Expr, Statement, StatementKind};

/// Returns whether statements read a name before they assign it (`find_undeclared`).
pub(super) fn mentions(body: &Body, name: &str) -> bool {
    body.iter().any(|statement| in_statement(statement, name))
}

fn in_statement(Statement { kind, .. }: &Statement, name: &str) -> bool {
    let reads = |expression: &Expr| in_expression(expression, name);
    match kind {
        StatementKind::Text(_)
        | StatementKind::Break
        | StatementKind::Continue
        | StatementKind::Block(_) => false,
        StatementKind::Output(value) | StatementKind::Set(_, value) => reads(value),
        StatementKind::If(branches, otherwise) => {
            let read = |(condition, body): &(Expr, Body)| reads(condition) || mentions(body, name);
            branches.iter().any(read) || mentions(otherwise, name)
        }
        StatementKind::For(part) => {
            reads(&part.list)
                || part.condition.as_ref().is_some_and(reads)
                || mentions(&part.body, name)
                || mentions(&part.otherwise, name)
        }
        StatementKind::SetBlock(_, filters, body) => {
            filters.as_ref().is_some_and(reads) || mentions(body, name)
        }
        StatementKind::With(values, body) => {
            values.iter().any(|(_, value)| reads(value)) || mentions(body, name)
        }
        StatementKind::Macro(part) => part.defaults.iter().any(reads) || mentions(&part.body, name),
        StatementKind::CallBlock(call, part) => {
            reads(call) || part.defaults.iter().any(reads) || mentions(&part.body, name)
        }
        StatementKind::Filter(value, body) | StatementKind::Autoescape(value, body) => {
            reads(value) || mentions(body, name)
        }
        StatementKind::Generation(body) => mentions(body, name),
    }
}

fn in_expression(expression: &Expr, name: &str) -> bool {
    let reads = |expression: &Expr| in_expression(expression, name);
    match expression {
        Expr::None | Expr::Bool(_) | Expr::Int(_) | Expr::Float(_) | Expr::Text(_) => false,
        Expr::Name(own) => &**own == name,
        Expr::List(items) | Expr::Tuple(items) | Expr::Concat(items) => items.iter().any(reads),
        Expr::Dict(pairs) => pairs.iter().any(|(key, value)| reads(key) || reads(value)),
        Expr::Attribute(of, _) | Expr::Not(of) | Expr::Negative(of) | Expr::Positive(of) => {
            reads(of)
        }
        Expr::Item(left, right)
        | Expr::Binary(_, left, right)
        | Expr::And(left, right)
        | Expr::Or(left, right) => reads(left) || reads(right),
        Expr::Slice(of, bounds) => reads(of) || bounds.iter().flatten().any(reads),
        Expr::Call(of, arguments) | Expr::Test(of, _, arguments) => {
            reads(of) || arguments.expressions().any(reads)
        }
        Expr::Filter(of, _, arguments) => {
            of.as_deref().is_some_and(reads) || arguments.expressions().any(reads)
        }
        Expr::Compare(first, others) => {
            reads(first) || others.iter().any(|(_, other)| reads(other))
        }
        Expr::If(condition, then, otherwise) => {
            reads(condition) || reads(then) || otherwise.as_deref().is_some_and(reads)
        }
    }
}
