//! Filters, tests, their arguments, parameters, and what is assigned to.

use super::{
    ast::{Arguments, Expr, Name, Target},
    checks,
    error::Outcome,
    expression::Words,
    filters,
    token::Lexeme,
};

impl Words {
    fn dotted(&mut self) -> Outcome<String> {
        let mut name = self.name()?.into_string();
        while self.take(".") {
            name = format!("{name}.{}", self.name()?);
        }
        Ok(name)
    }

    pub(super) fn filter(&mut self, of: Option<Expr>) -> Outcome<Expr> {
        let name = self.dotted()?;
        if !self.soft && !filters::is_known(&name) {
            return self.fail(&format!("there is no filter named {name:?}"));
        }
        let arguments = if self.is_at("(") {
            self.arguments()?
        } else {
            Arguments::default()
        };
        Ok(Expr::Filter(
            of.map(Box::new),
            name.into(),
            Box::new(arguments),
        ))
    }

    /// Parses the filters of a filter block.
    pub(super) fn filters_on_block(&mut self) -> Outcome<Expr> {
        let mut filters = self.filter(None)?;
        while self.take("|") {
            filters = self.filter(Some(filters))?;
        }
        Ok(filters)
    }

    /// Parses the filters of a set block, if there are any.
    pub(super) fn block_filters(&mut self) -> Outcome<Option<Expr>> {
        if self.take("|") {
            self.filters_on_block().map(Some)
        } else {
            Ok(None)
        }
    }

    pub(super) fn test(&mut self, of: Expr) -> Outcome<Expr> {
        let negated = self.take_name("not");
        let name = self.dotted()?;
        if !self.soft && !checks::is_known(&name) {
            return self.fail(&format!("there is no test named {name:?}"));
        }
        let mut arguments = Arguments::default();
        if self.is_at("(") {
            arguments = self.arguments()?;
        } else {
            let ends = ["else", "or", "and"]
                .into_iter()
                .any(|end| self.is_at_name(end));
            let takes = match self.tokens.peek() {
                Some(Lexeme::Operator(operator)) => matches!(*operator, "(" | "[" | "{"),
                Some(_) => !ends,
                None => false,
            };
            if takes {
                if self.is_at_name("is") {
                    return self.fail("tests can't be chained with `is`");
                }
                let argument = self.primary()?;
                arguments.positional.push(self.postfix(argument)?);
            }
        }
        let test = Expr::Test(Box::new(of), name.into(), Box::new(arguments));
        Ok(if negated {
            Expr::Not(Box::new(test))
        } else {
            test
        })
    }

    /// Parses what is assigned to; in a loop it ends at `in`.
    pub(super) fn target(&mut self, in_loop: bool) -> Outcome<Target> {
        let mut parts = vec![self.single_target()?];
        let mut comma = false;
        while self.take(",") {
            comma = true;
            if self.is_at("=") || (in_loop && self.is_at_name("in")) {
                break;
            }
            parts.push(self.single_target()?);
        }
        match parts.pop() {
            Some(only) if parts.is_empty() && !comma => Ok(only),
            last => Ok(Target::Tuple(parts.into_iter().chain(last).collect())),
        }
    }

    fn single_target(&mut self) -> Outcome<Target> {
        if self.take("(") {
            self.deeper()?;
            let inner = self.target(false)?;
            self.depth -= 1;
            self.expect(")")?;
            return Ok(inner);
        }
        let name = self.name()?;
        if matches!(
            &*name,
            "true" | "false" | "none" | "True" | "False" | "None"
        ) {
            return self.fail("a constant can't be assigned to");
        }
        if self.take(".") {
            return Ok(Target::Attribute(name, self.name()?));
        }
        Ok(Target::Name(name))
    }

    pub(super) fn arguments(&mut self) -> Outcome<Arguments> {
        self.expect("(")?;
        self.deeper()?;
        let mut arguments = Arguments::default();
        let mut first = true;
        while !self.take(")") {
            if !first {
                self.expect(",")?;
                if self.take(")") {
                    break;
                }
            }
            first = false;
            if self.take("**") {
                arguments.dict = Some(self.expression()?);
            } else if self.take("*") {
                arguments.list = Some(self.expression()?);
            } else {
                let value = self.expression()?;
                match value {
                    Expr::Name(name) if self.take("=") => {
                        let value = self.expression()?;
                        arguments.named.push((name, value));
                    }
                    _ if !arguments.named.is_empty() || arguments.dict.is_some() => {
                        return self.fail("an argument by place follows one by name");
                    }
                    value => arguments.positional.push(value),
                }
            }
        }
        self.depth -= 1;
        Ok(arguments)
    }

    /// Parses the parameters of a macro, and the defaults of the last of them.
    pub(super) fn parameters(&mut self) -> Outcome<(Vec<Name>, Vec<Expr>)> {
        self.expect("(")?;
        let (mut names, mut defaults) = (Vec::new(), Vec::new());
        while !self.take(")") {
            if !names.is_empty() {
                self.expect(",")?;
            }
            names.push(self.name()?);
            if self.take("=") {
                defaults.push(self.expression()?);
            } else if !defaults.is_empty() {
                return self.fail("a parameter without a default follows one with a default");
            }
        }
        Ok((names, defaults))
    }
}
