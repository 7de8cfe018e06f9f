package mender

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// listOurs lists the files of a tar as Sign reads it.
func listOurs(b []byte) (string, error) {
	var out strings.Builder
	t := &tarReader{r: bytes.NewReader(b)}
	for {
		name, _, err := t.next()
		if errors.Is(err, io.EOF) {
			return out.String(), nil
		}
		if err != nil {
			return "", err
		}
		body, err := io.ReadAll(t)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "%q %x\n", name, body)
	}
}

// listStd lists them as Inspect and Verify read it.
func listStd(b []byte) (string, error) {
	var out strings.Builder
	t := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := nextFile(t)
		if errors.Is(err, io.EOF) {
			return out.String(), nil
		}
		if err != nil {
			return "", err
		}
		body, err := io.ReadAll(t)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "%q %x\n", h.Name, body)
	}
}
