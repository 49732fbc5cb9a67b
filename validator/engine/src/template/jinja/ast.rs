//! What a template consists of, once it is parsed.

pub(super) type Name = Box<str>;

#[derive(Debug, Clone)]
pub(super) enum Expr {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Box<str>),
    Name(Name),
    List(Vec<Self>),
    Tuple(Vec<Self>),
    Dict(Vec<(Self, Self)>),
    Attribute(Box<Self>, Name),
    Item(Box<Self>, Box<Self>),
    /// Start, end and step.
    Slice(Box<Self>, Box<[Option<Self>; 3]>),
    Call(Box<Self>, Box<Arguments>),
    /// In a filter block, there is no input but the block.
    Filter(Option<Box<Self>>, Name, Box<Arguments>),
    Test(Box<Self>, Name, Box<Arguments>),
    Not(Box<Self>),
    Negative(Box<Self>),
    Positive(Box<Self>),
    Binary(&'static str, Box<Self>, Box<Self>),
    /// Texts of all of them, one after another.
    Concat(Vec<Self>),
    Compare(Box<Self>, Vec<(Comparison, Self)>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    If(Box<Self>, Box<Self>, Option<Box<Self>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Expr>,
    pub(super) named: Vec<(Name, Expr)>,
    /// `*list`
    pub(super) list: Option<Expr>,
    /// `**dict`
    pub(super) dict: Option<Expr>,
}

/// What values are assigned to.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Name(Name),
    /// An attribute of a namespace.
    Attribute(Name, Name),
    Tuple(Vec<Self>),
}

#[derive(Debug)]
pub(super) struct Statement {
    pub(super) line: usize,
    pub(super) kind: StatementKind,
}

pub(super) type Body = Vec<Statement>;

#[derive(Debug)]
pub(super) enum StatementKind {
    Text(String),
    Output(Expr),
    /// Conditions with what they lead to; the last may have none.
    If(Vec<(Expr, Body)>, Body),
    For(Box<For>),
    Set(Target, Expr),
    /// A target, filters on the block, and the block.
    SetBlock(Target, Option<Expr>, Body),
    With(Vec<(Target, Expr)>, Body),
    Macro(Macro),
    /// A call, and the macro it may call back.
    CallBlock(Expr, Macro),
    Filter(Expr, Body),
    Block(Body),
    Autoescape(Expr, Body),
    /// What the assistant says, as far as the trainer cares.
    Generation(Body),
    Break,
    Continue,
}

#[derive(Debug)]
pub(super) struct For {
    pub(super) target: Target,
    pub(super) list: Expr,
    pub(super) condition: Option<Expr>,
    pub(super) recursive: bool,
    pub(super) body: Body,
    pub(super) otherwise: Body,
}

#[derive(Debug)]
pub(super) struct Macro {
    pub(super) name: Name,
    pub(super) parameters: Vec<Name>,
    /// Of the last parameters.
    pub(super) defaults: Vec<Expr>,
    pub(super) body: Body,
    /// Whether the body asks for surplus arguments, by place and by name, and for the caller.
    pub(super) takes: [bool; 3],
}
