//! The trees of a forest in flat arrays, and the columns in which a file holds them.

use serde::{Deserialize, Serialize};

use super::math::average_path;

/// The most splits from a root to a leaf. Training stops at ⌈log2 of the sample size⌉, at most 15; forests of other
/// programs, grown without a limit, are deeper.
pub const MAX_DEPTH: usize = 64;

/// The most rows a tree is grown from: its at most 65,535 nodes are numbered with 16 bits.
pub const MAX_SAMPLES: u32 = 32_768;

/// The most features of one split of an extended forest.
pub const MAX_DIMENSIONS: usize = 64;

/// One split or leaf in eight bytes, so that a tree of 256 rows fits into the first-level cache beside the rows.
///
/// A row goes on to `left + 1` if its value is above the threshold and to `left` otherwise. A leaf has itself as `left`
/// and an infinite threshold: a row that has arrived stays there, so the descent needs no test for leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) threshold: f32,
    /// The column that is compared. Extended forests compare the sum of their terms.
    pub(super) feature: u16,
    /// Counted from the root of the tree.
    pub(super) left: u16,
}

/// One summand of an extended split: `weight` times the feature's distance from its median.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Term {
    pub(super) weight: f32,
    pub(super) feature: u16,
}

/// All trees, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Trees {
    /// Terms of a node; 0 for a plain forest.
    pub(super) dimensions: usize,
    pub(super) nodes: Vec<Node>,
    /// `dimensions` of each node, of leaves too (all zero).
    pub(super) terms: Vec<Term>,
    /// The path length to expect at each node: splits so far + [`average_path`] of its rows. At a leaf it is the path
    /// length that the row gets.
    pub(super) expected: Vec<f64>,
    /// Training rows at each node.
    rows: Vec<u32>,
    pub(super) roots: Vec<Root>,
}

/// Where a tree starts among the nodes, and the most splits to one of its leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Root {
    pub(super) first: usize,
    pub(super) depth: usize,
}

/// A tree as it is written: nodes from the root on, each before its left and that before its right subtree. A tree
/// written so can neither have a circle nor point out of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Columns {
    /// A character a node: `1` a split, `0` a leaf.
    pub(super) shape: String,
    /// Columns of the input, one a split; in an extended forest as many as it has dimensions.
    pub(super) features: Vec<u16>,
    /// Beside the features; empty in a plain forest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) weights: Vec<f32>,
    /// One a split.
    pub(super) thresholds: Vec<f32>,
    /// Training rows, one number a leaf.
    pub(super) rows: Vec<u32>,
}

/// What trees are checked against.
pub(super) struct Bounds {
    /// Columns of the input.
    pub(super) width: usize,
    /// Rows at each root.
    pub(super) max_samples: u32,
}

const LEAF: Node = Node { threshold: f32::INFINITY, feature: 0, left: 0 };

impl Trees {
    pub(super) fn new(dimensions: usize) -> Trees {
        let (nodes, terms, expected, rows, roots) = Default::default();
        Trees { dimensions, nodes, terms, expected, rows, roots }
    }

    /// The nodes of one tree, and their expected path lengths.
    pub(super) fn tree(&self, tree: usize) -> (&[Node], &[f64]) {
        let end = self.roots.get(tree + 1).map_or(self.nodes.len(), |root| root.first);
        let range = self.roots[tree].first..end;
        (&self.nodes[range.clone()], &self.expected[range])
    }

    /// The terms of all nodes of one tree.
    pub(super) fn tree_terms(&self, tree: usize) -> &[Term] {
        let end = self.roots.get(tree + 1).map_or(self.nodes.len(), |root| root.first);
        &self.terms[self.roots[tree].first * self.dimensions..end * self.dimensions]
    }

    /// Adds a tree.
    ///
    /// # Errors
    ///
    /// What is wrong with the columns. The trees are then unfit for use.
    pub(super) fn push(&mut self, columns: &Columns, bounds: &Bounds) -> Result<(), String> {
        columns.check(self.dimensions, bounds)?;
        let first = self.nodes.len();
        let depth = self.lay_out(columns)?;
        self.add_rows(first);
        if self.rows[first] != bounds.max_samples {
            return Err(format!("its leaves hold {} rows, max_samples is {}", self.rows[first], bounds.max_samples));
        }
        for (expected, &rows) in self.expected[first..].iter_mut().zip(&self.rows[first..]) {
            *expected += average_path(rows);
        }
        self.roots.push(Root { first, depth });
        Ok(())
    }

    /// Gives each node its place; leaves get their rows, and all nodes their number of splits in `expected`.
    fn lay_out(&mut self, columns: &Columns) -> Result<usize, String> {
        let first = self.nodes.len();
        let mut deepest = 0;
        let (mut split, mut leaf) = (0, 0);
        self.add_nodes(1, 0);
        // Places whose node is still to come, the next one last.
        let mut open = vec![(0usize, 0usize)];
        for kind in columns.shape.bytes() {
            let (place, depth) = open.pop().ok_or("its shape goes on after the last leaf")?;
            if kind != b'1' {
                self.rows[first + place] = columns.rows[leaf];
                self.nodes[first + place].left = place as u16;
                leaf += 1;
                continue;
            }
            if depth == MAX_DEPTH {
                return Err(format!("it has more than {MAX_DEPTH} splits in a row"));
            }
            deepest = deepest.max(depth + 1);
            let left = self.nodes.len() - first;
            self.add_nodes(2, depth + 1);
            self.set_split(first + place, columns, split, left as u16);
            split += 1;
            open.extend([(left + 1, depth + 1), (left, depth + 1)]);
        }
        if !open.is_empty() {
            return Err("its shape ends before the last leaf".to_owned());
        }
        Ok(deepest)
    }

    fn add_nodes(&mut self, count: usize, depth: usize) {
        let len = self.nodes.len() + count;
        self.nodes.resize(len, LEAF);
        self.terms.resize(len * self.dimensions, Term::default());
        self.expected.resize(len, depth as f64);
        self.rows.resize(len, 0);
    }

    fn set_split(&mut self, node: usize, columns: &Columns, split: usize, left: u16) {
        let threshold = columns.thresholds[split];
        if self.dimensions == 0 {
            self.nodes[node] = Node { threshold, feature: columns.features[split], left };
            return;
        }
        self.nodes[node] = Node { threshold, feature: 0, left };
        for term in 0..self.dimensions {
            let from = split * self.dimensions + term;
            let (weight, feature) = (columns.weights[from], columns.features[from]);
            self.terms[node * self.dimensions + term] = Term { weight, feature };
        }
    }

    /// Rows of splits, from those of the leaves. Children stand behind their parent.
    fn add_rows(&mut self, first: usize) {
        for place in (first..self.nodes.len()).rev() {
            let left = first + usize::from(self.nodes[place].left);
            if left != place {
                self.rows[place] = self.rows[left] + self.rows[left + 1];
            }
        }
    }

    /// A tree as it is written.
    pub(super) fn columns(&self, tree: usize) -> Columns {
        let (nodes, _) = self.tree(tree);
        let first = self.roots[tree].first;
        let mut columns = Columns::default();
        let mut open = vec![0usize];
        while let Some(place) = open.pop() {
            let node = nodes[place];
            let left = usize::from(node.left);
            if left == place {
                columns.shape.push('0');
                columns.rows.push(self.rows[first + place]);
                continue;
            }
            columns.shape.push('1');
            columns.thresholds.push(node.threshold);
            if self.dimensions == 0 {
                columns.features.push(node.feature);
            }
            for term in &self.tree_terms(tree)[place * self.dimensions..][..self.dimensions] {
                columns.features.push(term.feature);
                columns.weights.push(term.weight);
            }
            open.extend([left + 1, left]);
        }
        columns
    }
}

impl Columns {
    /// Everything but the depth and the order of the shape, which show when the nodes are laid out.
    fn check(&self, dimensions: usize, bounds: &Bounds) -> Result<(), String> {
        let splits = self.shape.bytes().filter(|&kind| kind == b'1').count();
        if let Some(kind) = self.shape.chars().find(|kind| !matches!(kind, '0' | '1')) {
            return Err(format!("its shape has the character {kind:?}, which is neither 0 nor 1"));
        }
        if self.shape.len() != 2 * splits + 1 || self.shape.len() > 2 * MAX_SAMPLES as usize - 1 {
            return Err(format!("its shape has {splits} splits among {} nodes", self.shape.len()));
        }
        let lengths = [
            ("features", self.features.len(), splits * dimensions.max(1)),
            ("weights", self.weights.len(), splits * dimensions),
            ("thresholds", self.thresholds.len(), splits),
            ("rows", self.rows.len(), splits + 1),
        ];
        if let Some((name, is, must)) = lengths.iter().find(|(_, is, must)| is != must) {
            return Err(format!("it has {is} {name} where its shape needs {must}"));
        }
        if let Some(feature) = self.features.iter().find(|&&feature| usize::from(feature) >= bounds.width) {
            return Err(format!("it splits by column {feature} of {}", bounds.width));
        }
        if self.weights.iter().chain(&self.thresholds).any(|number| !number.is_finite()) {
            return Err("a weight or threshold is not finite".to_owned());
        }
        match self.rows.iter().find(|&&rows| rows == 0 || rows > bounds.max_samples) {
            Some(rows) => Err(format!("it has a leaf of {rows} rows")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { width: 3, max_samples: 6 };

    fn columns() -> Columns {
        Columns {
            shape: "11000".to_owned(),
            features: vec![2, 0],
            weights: vec![],
            thresholds: vec![1.5, -0.5],
            rows: vec![1, 2, 3],
        }
    }

    fn refused(change: impl FnOnce(&mut Columns)) -> String {
        let mut columns = columns();
        change(&mut columns);
        Trees::new(0).push(&columns, &BOUNDS).expect_err("must be refused")
    }

    #[test]
    fn nodes_are_small() {
        assert_eq!((size_of::<Node>(), size_of::<Term>()), (8, 8));
    }

    #[test]
    fn trees_survive_being_laid_out() {
        let mut trees = Trees::new(0);
        trees.push(&columns(), &BOUNDS).expect("a sound tree");
        trees.push(&columns(), &BOUNDS).expect("a sound tree");
        assert_eq!((trees.columns(0), trees.columns(1)), (columns(), columns()));
        assert_eq!(trees.roots[1], Root { first: 5, depth: 2 });
        assert_eq!(trees.rows[..5], [6, 3, 3, 1, 2]);
        assert_eq!(trees.expected[3..5], [2.0, 3.0]);
    }

    #[test]
    fn unsound_trees_are_refused() {
        assert!(refused(|c| c.shape = "1100".to_owned()).contains("2 splits among 4 nodes"));
        assert!(refused(|c| c.shape = "10010".to_owned()).contains("after the last leaf"));
        assert!(refused(|c| c.shape = "00011".to_owned()).contains("after the last leaf"));
        assert!(refused(|c| c.shape = "1a0é0".to_owned()).contains("'a'"));
        assert!(refused(|c| c.features[1] = 3).contains("column 3 of 3"));
        assert!(refused(|c| c.features.push(0)).contains("3 features"));
        assert!(refused(|c| c.weights.push(1.0)).contains("1 weights"));
        assert!(refused(|c| c.thresholds[0] = f32::INFINITY).contains("not finite"));
        assert!(refused(|c| c.rows = vec![1, 2]).contains("2 rows where"));
        assert!(refused(|c| c.rows[0] = 0).contains("leaf of 0 rows"));
        assert!(refused(|c| c.rows[0] = 2).contains("hold 7 rows"));
        let deep = Columns {
            shape: format!("{}{}", "1".repeat(65), "0".repeat(66)),
            features: vec![0; 65],
            weights: vec![],
            thresholds: vec![0.0; 65],
            rows: vec![1; 66],
        };
        let bounds = Bounds { width: 3, max_samples: 66 };
        assert!(Trees::new(0).push(&deep, &bounds).expect_err("must be refused").contains("more than 64 splits"));
    }
}
