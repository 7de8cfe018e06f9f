// Package access says who the operators are and what they may do: persons,
// the API tokens that stand for them, and the scopes of their roles.
//
// # Persons, tokens, roles
//
// A person is who somebody is, whatever accounts they have; separation of
// duties is decided on the person. A token acts for one person with some
// roles until it expires; every token expires. A [Role]'s scopes are one table
// (scope.go), and a route needs exactly one [Scope]. The zero [Principal] may
// do nothing.
//
// # What it promises
//
//   - A token is "writ_", 43 characters of 256 random bits and 6 of checksum,
//     all base 62, so that scanners find leaked ones and a typing error is told
//     from a revoked token. Only its SHA-256 is stored; the secret is returned
//     once, in a type that does not print itself.
//   - Every change writes its evidence record in the same transaction
//     (invariant I8). The record never holds the secret or its hash.
//   - A revoked token or disabled person stops working before the call that
//     did it returns; on other replicas within [ReplicaTTL].
//   - Nobody grants the approver role to themselves, and nobody holds admin
//     and approver at once: the one who makes accounts never approves
//     (invariant I5). The host itself ([Local]) grants no approver either.
//   - The last live admin token cannot be revoked, nor its person disabled.
//
// A token never approves anything by itself. The approver role only lets its
// holder submit an approval, and that is a signature by a key on the roster,
// which the signer checks on its own. So an admin who invents a person and
// keeps that person's token still has no approver's key.
//
// # First run
//
// [Access.Bootstrap] makes the person "admin" with every role but approver,
// when there is no person yet. Whoever can run commands on the host holds its
// keys anyway; [Local] is how such a command appears in the evidence, and how
// a lost last token is replaced.
package access
