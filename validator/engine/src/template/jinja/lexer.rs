//! Cuts a template into texts and tags, with the white space that Jinja drops around them
//! (`jinja2/lexer.py`, with `trim_blocks` and `lstrip_blocks`).

use super::{
    error::{Outcome, TemplateError},
    text::is_space,
    token::{Lexeme, tokens},
};

/// A piece of a template.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) kind: PieceKind,
    pub(super) line: usize,
}

#[derive(Debug)]
pub(super) enum PieceKind {
    Text(String),
    /// `{{ .. }}`
    Output(Vec<Lexeme>),
    /// `{% .. %}`
    Block(Vec<Lexeme>),
}

#[derive(Clone, Copy, PartialEq)]
enum Tag {
    Raw,
    Block,
    Comment,
    Output,
}

/// Cuts a template into pieces.
pub(super) fn pieces(source: &str) -> Outcome<Vec<Piece>> {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    Lexer {
        source: &source,
        at: 0,
        line_starting: true,
        pieces: Vec::new(),
    }
    .run()
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    /// Whether what was read last ends a line.
    line_starting: bool,
    pieces: Vec<Piece>,
}

impl<'s> Lexer<'s> {
    fn run(mut self) -> Outcome<Vec<Piece>> {
        while let Some((start, tag)) = self.next_tag() {
            let text = &self.source[self.at..start];
            let opening = &self.source[start + 2..];
            let sign = opening.chars().next().filter(|c| matches!(c, '-' | '+'));
            // Only blocks and comments know a plus sign.
            let sign = sign.filter(|&sign| sign == '-' || tag != Tag::Output);
            let text = self.stripped(text, sign, tag);
            self.push_text(text);
            self.at = start + 2 + usize::from(sign.is_some());
            match tag {
                Tag::Comment => self.comment()?,
                Tag::Raw => self.raw()?,
                Tag::Output | Tag::Block => self.expression(tag)?,
            }
            self.line_starting = self.source[..self.at].ends_with('\n');
        }
        let rest = &self.source[self.at..];
        self.push_text(rest);
        Ok(self.pieces)
    }

    fn line(&self) -> usize {
        1 + self.source[..self.at].matches('\n').count()
    }

    fn fail<T>(&self, text: &str) -> Outcome<T> {
        Err(TemplateError::at(self.line(), text))
    }

    fn push_text(&mut self, text: &str) {
        if !text.is_empty() {
            self.pieces.push(Piece {
                line: self.line(),
                kind: PieceKind::Text(text.to_owned()),
            });
        }
    }

    fn next_tag(&self) -> Option<(usize, Tag)> {
        let mut from = self.at;
        loop {
            let start = from + self.source[from..].find('{')?;
            let tag = match self.source.as_bytes().get(start + 1) {
                Some(b'{') => Tag::Output,
                Some(b'#') => Tag::Comment,
                Some(b'%') if self.raw_begin(start).is_some() => Tag::Raw,
                Some(b'%') => Tag::Block,
                _ => {
                    from = start + 1;
                    continue;
                }
            };
            return Some((start, tag));
        }
    }

    /// Returns where `{% raw %}` at `start` ends, if it is there.
    fn raw_begin(&self, start: usize) -> Option<usize> {
        let rest = &self.source[start + 2..];
        let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
        let rest = rest.trim_start_matches(is_space).strip_prefix("raw")?;
        let rest = rest.trim_start_matches(is_space);
        let rest = match rest.strip_prefix("-%}") {
            Some(rest) => rest.trim_start_matches(is_space),
            None => rest.strip_prefix("%}")?,
        };
        Some(self.source.len() - rest.len())
    }

    /// Drops white space before a tag.
    fn stripped(&self, text: &'s str, sign: Option<char>, tag: Tag) -> &'s str {
        match sign {
            Some('-') => text.trim_end_matches(is_space),
            Some(_) => text,
            None if tag == Tag::Output => text,
            None => {
                let start = text.rfind('\n').map_or(0, |at| at + 1);
                let own_line = start > 0 || self.line_starting;
                if own_line && text[start..].chars().all(is_space) {
                    &text[..start]
                } else {
                    text
                }
            }
        }
    }

    /// Goes past the end of a tag that may swallow white space.
    fn swallow(&mut self, end: &str) -> bool {
        let rest = &self.source[self.at..];
        let rest = if let Some(rest) = rest.strip_prefix('-').and_then(|r| r.strip_prefix(end)) {
            rest.trim_start_matches(is_space)
        } else if let Some(rest) = rest.strip_prefix('+').and_then(|r| r.strip_prefix(end)) {
            rest
        } else if let Some(rest) = rest.strip_prefix(end) {
            rest.strip_prefix('\n').unwrap_or(rest)
        } else {
            return false;
        };
        self.at = self.source.len() - rest.len();
        true
    }

    fn comment(&mut self) -> Outcome<()> {
        let Some(end) = self.source[self.at..].find("#}") else {
            return self.fail("a comment has no end");
        };
        let inside = &self.source[self.at..self.at + end];
        self.at += end - usize::from(inside.ends_with(['-', '+']));
        self.swallow("#}");
        Ok(())
    }

    fn raw(&mut self) -> Outcome<()> {
        let start = self.source[..self.at].rfind("{%").unwrap_or_default();
        self.at = self.raw_begin(start).unwrap_or(self.at);
        self.line_starting = self.source[..self.at].ends_with('\n');
        let mut from = self.at;
        loop {
            let Some(found) = self.source[from..].find("{%") else {
                return self.fail("a raw block has no end");
            };
            let start = from + found;
            let rest = &self.source[start + 2..];
            let sign = rest.chars().next().filter(|c| matches!(c, '-' | '+'));
            let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
            let rest = rest.trim_start_matches(is_space);
            let end = rest
                .strip_prefix("endraw")
                .map(|rest| rest.trim_start_matches(is_space));
            let text = &self.source[self.at..start];
            if let Some(rest) = end {
                let before = self.at;
                self.at = self.source.len() - rest.len();
                if self.swallow("%}") {
                    let text = self.stripped(text, sign, Tag::Block);
                    self.push_text(text);
                    return Ok(());
                }
                self.at = before;
            }
            from = start + 2;
        }
    }

    fn expression(&mut self, tag: Tag) -> Outcome<()> {
        let line = self.line();
        let end = if tag == Tag::Block { "%}" } else { "}}" };
        let (found, used) = tokens(&self.source[self.at..], end, line)?;
        self.at += used;
        let kind = if tag == Tag::Block {
            if !self.swallow(end) {
                return self.fail("a tag has no end");
            }
            PieceKind::Block(found)
        } else {
            let rest = &self.source[self.at..];
            let rest = match rest.strip_prefix("-}}") {
                Some(rest) => rest.trim_start_matches(is_space),
                None => rest.strip_prefix(end).unwrap_or(rest),
            };
            self.at = self.source.len() - rest.len();
            PieceKind::Output(found)
        };
        self.pieces.push(Piece { kind, line });
        Ok(())
    }
}
