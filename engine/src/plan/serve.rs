//! What a pipeline serves over HTTP: where, and which tables.

use std::net::SocketAddr;

use super::Serve;
use super::planner::{Planned, Planner};
use super::resolve::Resolved;
use crate::spec::{Diagnostic, Located, NodeSpec, ServeSpec};

impl Planner<'_> {
    /// Checks the section `serve`. Ports that it shows count as connected; tables of nodes that were refused are left out.
    pub(super) fn serve(
        &mut self,
        section: &ServeSpec,
        written: &[NodeSpec],
        resolved: &[Resolved],
        planned: &mut Planned,
    ) -> Serve {
        self.listen(&section.listen);
        let mut tables: Vec<(String, usize, usize)> = Vec::new();
        for (at, (name, reference)) in section.tables.iter().enumerate() {
            self.table_name(name, &section.tables[..at]);
            let Some((node, port)) = self.reference(reference, written, resolved) else { continue };
            let Some(&node) = planned.placed.get(&node) else { continue };
            if planned.nodes[node].kind.outputs.is_empty() {
                continue;
            }
            if let Some((other, ..)) = tables.iter().find(|(_, n, p)| (*n, *p) == (node, port)) {
                let message = format!("`{}` is served already, as `{other}`", reference.value);
                self.problems.push(Diagnostic::new(reference.span, message));
                continue;
            }
            planned.nodes[node].connected[port] = true;
            tables.push((name.value.clone(), node, port));
        }
        Serve {
            listen: section.listen.value.clone(),
            hosts: section.hosts.clone(),
            hot_rows: section.hot_rows,
            queries: section.queries.clone(),
            tables,
        }
    }

    /// The web service listens at an address, not at a name.
    fn listen(&mut self, listen: &Located<String>) {
        if let Err(error) = listen.value.parse::<SocketAddr>() {
            let message = format!("`{}` is not an address and port: {error}", listen.value);
            let problem = Diagnostic::new(listen.span, message);
            self.problems.push(problem.help("such as 127.0.0.1:8080 or [::1]:8080"));
        }
    }

    /// A table's name is an SQL identifier that needs no quotes; SQL without quotes does not tell cases apart.
    fn table_name(&mut self, name: &Located<String>, before: &[(Located<String>, Located<String>)]) {
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !name.value.chars().all(valid)
            || name.value.starts_with(|c: char| !c.is_ascii_alphabetic() && c != '_')
            || name.value.is_empty()
        {
            let problem = Diagnostic::new(name.span, format!("`{}` is not a table name", name.value));
            self.problems.push(problem.help("use letters, digits and _, and a letter first"));
        }
        if before.iter().any(|(other, _)| other.value.eq_ignore_ascii_case(&name.value)) {
            let problem = Diagnostic::new(name.span, format!("the table `{}` is there already", name.value));
            self.problems.push(problem.help("SQL does not tell upper from lower case here"));
        }
    }
}
