//go:build !linux

package agent

import "errors"

func mountSmall(string) (func(), error) { return nil, errors.ErrUnsupported }
