// Package policy decides whether one device may install one release now.
package policy
