package release

// The steps of Publish, for tests that end the process between them.
var (
	Authorize = (*Service).authorize
	SignAll   = (*Service).signAll
	State     = (*Service).state
	Commit    = (*Service).publish
)
