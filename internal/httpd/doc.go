// Package httpd has the mechanics of HTTP that every surface of writ shares:
// handlers that return errors, one answer for each kind of error, one log
// line for each request, bounds on bodies, time and callers, and a server
// that drains before it stops. It knows nothing of devices or releases.
//
// # Errors
//
// A [Handler] either writes a response and returns nil, or returns an error
// and writes nothing. [Front.Handle] turns the error into an RFC 9457 problem:
//
//	HTTP/1.1 409 Conflict
//	Content-Type: application/problem+json
//	X-Request-Id: 5GQJ7K2M-1a2b
//
//	{"type":"about:blank","title":"Conflict","status":409,
//	 "detail":"this upload continues at byte 300000, not at byte 0",
//	 "kind":"conflict","request_id":"5GQJ7K2M-1a2b"}
//
// The status follows from the [fw.Kind] by one table ([Status]). The detail is
// the message of the [fw.Error]; its cause, and the text of any other error,
// appear only in the log, under the same request id. Errors are JSON whatever
// the request's own encoding is. 429 and 503 carry Retry-After, 401 carries
// WWW-Authenticate.
//
// A panic is an internal error. When a handler fails after it began to write,
// the connection is cut, so that half an answer is never taken for a whole one.
//
// # Logging
//
// One event, http_request, for each request, with snake_case keys: request_id,
// method, path, route, status, bytes, duration_us, remote, what the handler
// added with [Annotate], and for errors kind and error. Successful requests of
// devices ([Devices]) are routine and logged at debug, other requests at info,
// 5xx at error. Query strings are not logged: they may hold secrets.
//
// # Cost
//
// The wrapper is on the path of every device check-in: on success it adds one
// allocation and well under 2 µs (BenchmarkHandle). Request ids are a counter
// under a random prefix and become text only when somebody reads them.
//
// # Callers
//
// [Limiter] gives each network address a token bucket, for routes where the
// caller is not yet known. Addresses come from the connection; forwarding
// headers are not believed.
package httpd
