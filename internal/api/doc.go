// Package api serves the REST API v1 of operators and auditors, with its
// OpenAPI 3.1 description at /api/v1/openapi.json.
//
// # What it promises
//
//   - Every operation is registered with one scope, or says that it is public;
//     [Register] returns all of them, and a test calls each one. The
//     scope is required before anything else happens.
//   - Handlers hold no rules. They turn JSON into a call of a service and the
//     result into JSON (package apitypes).
//   - Every error is an RFC 9457 problem with a kind and a message that says
//     what to do; what is not for the caller is logged.
//   - Bodies are bounded; unknown members are refused.
//   - The person on whose behalf something happens is the token's, never a
//     member of the body.
package api
