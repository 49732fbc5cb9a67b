//! Filters on lists.

use std::cmp::Ordering;

use super::{
    error::{Outcome, fail},
    operators::soft_text,
    run::Run,
    signature::{Bound, Given},
    text::escape_html,
    value::{Text, Value},
};

impl Run<'_> {
    pub(super) fn sequence_filter(
        &mut self,
        name: &str,
        of: &Value,
        given: Given,
    ) -> Outcome<Value> {
        let items = |run: &mut Self| run.items_of(of);
        match name {
            "first" => {
                Bound::new(&[], given)?;
                let first = of.iterate()?.into_iter().next();
                Ok(first.unwrap_or_else(|| Value::undefined("there is no first item")))
            }
            "last" => {
                Bound::new(&[], given)?;
                if matches!(of, Value::Generator(_)) {
                    return fail("a generator can't be reversed");
                }
                let last = of.iterate()?.pop();
                Ok(last.unwrap_or_else(|| Value::undefined("there is no last item")))
            }
            "reverse" => {
                Bound::new(&[], given)?;
                if let Value::Text(text) = of {
                    self.make(text.text.len())?;
                    return Ok(Value::Text(Text {
                        text: text.text.chars().rev().collect::<String>().into(),
                        safe: text.safe,
                    }));
                }
                let mut items = items(self)?;
                items.reverse();
                Value::generator(items)
            }
            "join" => {
                let mut bound = Bound::new(&["d", "attribute"], given)?;
                let separator = bound.any_text(0, "")?;
                let attribute = bound.take(1);
                let items = items(self)?;
                self.join(items, &separator, attribute)
            }
            "sum" => {
                let mut bound = Bound::new(&["attribute", "start"], given)?;
                let (attribute, start) = (bound.take(0), bound.take(1));
                let mut sum = start.unwrap_or(Value::Int(0));
                for item in items(self)? {
                    let item = self.looked_up(item, attribute.as_ref())?;
                    sum = self.binary("+", &sum, &item)?;
                }
                Ok(sum)
            }
            "min" | "max" => {
                let mut bound = Bound::new(&["case_sensitive", "attribute"], given)?;
                let (sensitive, attribute) = (bound.flag(0, false), bound.take(1));
                let items = items(self)?;
                self.extreme(name == "max", items, sensitive, attribute.as_ref())
            }
            "sort" => {
                let mut bound = Bound::new(&["reverse", "case_sensitive", "attribute"], given)?;
                let (reverse, sensitive) = (bound.flag(0, false), bound.flag(1, false));
                let attribute = bound.take(2);
                let items = items(self)?;
                let keyed = self.keyed(items, sensitive, attribute.as_ref())?;
                Value::list(sorted(keyed, reverse)?)
            }
            "unique" => {
                let mut bound = Bound::new(&["case_sensitive", "attribute"], given)?;
                let (sensitive, attribute) = (bound.flag(0, false), bound.take(1));
                let items = items(self)?;
                let keyed = self.keyed(items, sensitive, attribute.as_ref())?;
                let mut kept: Vec<(Value, Value)> = Vec::new();
                for (key, item) in keyed {
                    self.step(kept.len() / 8)?;
                    if !kept.iter().any(|(known, _)| known.equals(&key)) {
                        kept.push((key, item));
                    }
                }
                Value::generator(kept.into_iter().map(|(_, item)| item).collect())
            }
            _ => self.arranged(name, of, given),
        }
    }

    fn items_of(&mut self, of: &Value) -> Outcome<Vec<Value>> {
        let items = of.iterate()?;
        self.step(items.len())?;
        self.make(items.len() * size_of::<Value>())?;
        Ok(items)
    }

    /// The filters that put items into groups.
    fn arranged(&mut self, name: &str, of: &Value, given: Given) -> Outcome<Value> {
        let items = |run: &mut Self| run.items_of(of);
        match name {
            "groupby" => self.group(of, given),
            "dictsort" => self.sort_dict(of, given),
            "batch" => {
                let mut bound = Bound::new(&["linecount", "fill_with"], given)?;
                let (size, fill) = (bound.size(0, usize::MAX)?, bound.take(1));
                let items = items(self)?;
                self.make(size * size_of::<Value>())?;
                batches(&items, size, fill)
            }
            _ => {
                let mut bound = Bound::new(&["slices", "fill_with"], given)?;
                let (count, fill) = (bound.size(0, usize::MAX)?, bound.take(1));
                let items = items(self)?;
                self.make(count * size_of::<Value>())?;
                slices(&items, count, fill)
            }
        }
    }

    fn join(
        &mut self,
        items: Vec<Value>,
        separator: &str,
        attribute: Option<Value>,
    ) -> Outcome<Value> {
        let mut parts = Vec::with_capacity(items.len());
        let mut safe = false;
        for item in items {
            let item = self.looked_up(item, attribute.as_ref())?;
            let text = soft_text(&item)?;
            safe |= text.safe && self.autoescape;
            parts.push(text);
        }
        let bytes: usize = parts
            .iter()
            .map(|part| part.text.len() + separator.len())
            .sum();
        self.make(bytes)?;
        let plain = |part: &Text| {
            if safe && !part.safe {
                escape_html(&part.text)
            } else {
                part.text.to_string()
            }
        };
        let joined = parts.iter().map(plain).collect::<Vec<_>>().join(separator);
        Ok(if safe {
            Value::safe(joined)
        } else {
            Value::text(joined)
        })
    }

    /// Returns an attribute of a value, such as `a.b` or `0`, or the value itself.
    fn looked_up(&mut self, mut of: Value, path: Option<&Value>) -> Outcome<Value> {
        let path = match path {
            None | Some(Value::None) => return Ok(of),
            Some(Value::Int(index)) => return self.item(&of, &Value::Int(*index)),
            Some(Value::Text(path)) => path,
            Some(other) => return fail(format!("an attribute can't be a {}", other.kind())),
        };
        for part in path.text.split('.') {
            self.step(1)?;
            let index = part.parse().map_or_else(|_| Value::text(part), Value::Int);
            of = self.item(&of, &index)?;
        }
        Ok(of)
    }

    /// Adds the key that each item is compared by.
    fn keyed(
        &mut self,
        items: Vec<Value>,
        sensitive: bool,
        path: Option<&Value>,
    ) -> Outcome<Vec<(Value, Value)>> {
        let paths: Vec<Value> = match path {
            Some(Value::Text(paths)) if paths.text.contains(',') => {
                paths.text.split(',').map(Value::text).collect()
            }
            Some(path) => vec![path.clone()],
            None => Vec::new(),
        };
        let lower = |value: Value| match &value {
            Value::Text(text) if !sensitive => Value::text(text.text.to_lowercase()),
            _ => value,
        };
        let mut keyed = Vec::with_capacity(items.len());
        for item in items {
            let key = match paths.as_slice() {
                [] => lower(item.clone()),
                [path] => lower(self.looked_up(item.clone(), Some(path))?),
                paths => {
                    let mut keys = Vec::new();
                    for path in paths {
                        keys.push(lower(self.looked_up(item.clone(), Some(path))?));
                    }
                    Value::list(keys)?
                }
            };
            keyed.push((key, item));
        }
        Ok(keyed)
    }

    fn extreme(
        &mut self,
        largest: bool,
        items: Vec<Value>,
        sensitive: bool,
        path: Option<&Value>,
    ) -> Outcome<Value> {
        let mut best: Option<(Value, Value)> = None;
        for (key, item) in self.keyed(items, sensitive, path)? {
            let better = match &best {
                None => true,
                Some((known, _)) => {
                    let order = key.order(known)?;
                    order
                        == Some(if largest {
                            Ordering::Greater
                        } else {
                            Ordering::Less
                        })
                }
            };
            if better {
                best = Some((key, item));
            }
        }
        Ok(best.map_or_else(|| Value::undefined("no items"), |(_, item)| item))
    }

    fn group(&mut self, of: &Value, given: Given) -> Outcome<Value> {
        let mut bound = Bound::new(&["attribute", "default", "case_sensitive"], given)?;
        let (path, default) = (bound.value(0)?, bound.take(1));
        let sensitive = bound.flag(2, false);
        let items = of.iterate()?;
        self.step(items.len())?;
        let mut keyed = Vec::new();
        for item in items {
            let mut grouper = self.looked_up(item.clone(), Some(&path))?;
            if let (Value::Undefined(_), Some(default)) = (&grouper, &default) {
                grouper = default.clone();
            }
            let key = match &grouper {
                Value::Text(text) if !sensitive => Value::text(text.text.to_lowercase()),
                other => other.clone(),
            };
            keyed.push((key, Value::tuple(vec![grouper, item])?));
        }
        let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
        for pair in sorted(keyed, false)? {
            let Ok([grouper, item]) = <[Value; 2]>::try_from(pair.iterate()?) else {
                return fail("a group is made of pairs");
            };
            let key = match &grouper {
                Value::Text(text) if !sensitive => Value::text(text.text.to_lowercase()),
                other => other.clone(),
            };
            match groups.last_mut().filter(|(known, ..)| known.equals(&key)) {
                Some((_, _, items)) => items.push(item),
                None => groups.push((key, grouper, vec![item])),
            }
        }
        let groups = groups.into_iter().map(|(_, grouper, items)| {
            Value::named_tuple(&["grouper", "list"], vec![grouper, Value::list(items)?])
        });
        Value::list(groups.collect::<Outcome<_>>()?)
    }

    fn sort_dict(&mut self, of: &Value, given: Given) -> Outcome<Value> {
        let mut bound = Bound::new(&["case_sensitive", "by", "reverse"], given)?;
        let sensitive = bound.flag(0, false);
        let by = bound.any_text(1, "key")?;
        let reverse = bound.flag(2, false);
        let Value::Dict(dict) = of else {
            return fail("dictsort takes a dict");
        };
        self.step(dict.pairs.len())?;
        let mut keyed = Vec::new();
        for (key, value) in &dict.pairs {
            let compared = match &*by {
                "key" => key,
                "value" => value,
                _ => return fail("dictsort sorts by key or by value"),
            };
            let compared = match compared {
                Value::Text(text) if !sensitive => Value::text(text.text.to_lowercase()),
                other => other.clone(),
            };
            keyed.push((compared, Value::tuple(vec![key.clone(), value.clone()])?));
        }
        Value::list(sorted(keyed, reverse)?)
    }

    /// `map`, `select` and the like.
    pub(super) fn pick(
        &mut self,
        name: &str,
        of: &Value,
        (positional, mut named): Given,
    ) -> Outcome<Value> {
        let items = of.iterate()?;
        self.step(items.len())?;
        let mut positional = std::collections::VecDeque::from(positional);
        let mut picked = Vec::new();
        if name == "map" {
            let mut take = |wanted: &str| {
                let place = named.iter().position(|(name, _)| &**name == wanted)?;
                Some(named.remove(place).1)
            };
            let attribute = take("attribute").filter(|_| positional.is_empty());
            let default = attribute.as_ref().and_then(|_| take("default"));
            let filter = positional.pop_front();
            if attribute.is_some() && !named.is_empty() {
                return fail("map takes an attribute and a default");
            }
            for item in items {
                picked.push(match (&attribute, &filter) {
                    (Some(path), _) => match (self.looked_up(item, Some(path))?, &default) {
                        (Value::Undefined(_), Some(default)) => default.clone(),
                        (value, _) => value,
                    },
                    (None, Some(filter)) => {
                        let Some(name) = filter.as_text() else {
                            return fail("map takes the name of a filter");
                        };
                        let name = name.to_owned();
                        self.filter(&name, item, positional.clone().into(), named.clone())?
                    }
                    (None, None) => return fail("map takes a filter or an attribute"),
                });
            }
            return Value::generator(picked);
        }
        let attribute = if name.ends_with("attr") {
            match positional.pop_front() {
                Some(attribute) => Some(attribute),
                None => return fail("the attribute is missing"),
            }
        } else {
            None
        };
        let test = match positional.pop_front() {
            None => None,
            Some(test) => match test.as_text() {
                Some(test) => Some(test.to_owned()),
                None => return fail("the name of a test must be a text"),
            },
        };
        for item in items {
            let value = self.looked_up(item.clone(), attribute.as_ref())?;
            let holds = match &test {
                None => value.is_true(),
                Some(test) => self.test(test, &value, positional.clone().into(), named.clone())?,
            };
            if holds == name.starts_with("select") {
                picked.push(item);
            }
        }
        Value::generator(picked)
    }
}

/// Sorts items by their keys; equal ones keep their order.
fn sorted(mut keyed: Vec<(Value, Value)>, reverse: bool) -> Outcome<Vec<Value>> {
    let mut failed = None;
    keyed.sort_by(|(a, _), (b, _)| {
        let order = match a.order(b) {
            Ok(order) => order.unwrap_or(Ordering::Equal),
            Err(error) => {
                failed.get_or_insert(error);
                Ordering::Equal
            }
        };
        if reverse { order.reverse() } else { order }
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(keyed.into_iter().map(|(_, item)| item).collect()),
    }
}

fn batches(items: &[Value], size: usize, fill: Option<Value>) -> Outcome<Value> {
    let mut batches = Vec::new();
    for batch in items.chunks(size.max(1)) {
        let mut batch = batch.to_vec();
        if let Some(fill) = fill.as_ref().filter(|fill| !matches!(fill, Value::None)) {
            let missing = size.saturating_sub(batch.len());
            batch.extend(std::iter::repeat_n(fill.clone(), missing));
        }
        batches.push(Value::list(batch)?);
    }
    Value::generator(batches)
}

fn slices(items: &[Value], count: usize, fill: Option<Value>) -> Outcome<Value> {
    if count == 0 {
        return fail("there are no slices to fill");
    }
    let (size, extra) = (items.len() / count, items.len() % count);
    let mut slices = Vec::new();
    let mut rest = items;
    for number in 0..count {
        let (slice, after) = rest.split_at(size + usize::from(number < extra));
        rest = after;
        let mut slice = slice.to_vec();
        if number >= extra
            && let Some(fill) = &fill
            && !matches!(fill, Value::None)
        {
            slice.push(fill.clone());
        }
        slices.push(Value::list(slice)?);
    }
    Value::generator(slices)
}
