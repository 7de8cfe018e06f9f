package verify

// CutFrame is cutFrame, for tests that take bundles apart.
var CutFrame = cutFrame
