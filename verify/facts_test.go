package verify

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-project/writ/internal/fw"
	"github.com/writ-project/writ/internal/policy"
)

// fill sets everything in v to something else than nothing.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	if d, ok := reflect.TypeAssert[*fw.Digest](v.Addr()); ok {
		*d = fw.DigestOf([]byte("x"))
		return
	}
	switch v.Kind() { //nolint:exhaustive // facts have no others
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(t, field)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(t, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"a\n\"": "b", "c": ""}))
	case reflect.String:
		v.SetString("é\"<&>\\ ")
	case reflect.Int, reflect.Int64:
		v.SetInt(1 << 40)
	case reflect.Uint64:
		v.SetUint(math.MaxUint64)
	case reflect.Bool:
		v.SetBool(true)
	default:
		t.Fatalf("facts have a %s", v.Kind())
	}
}

// A field that is added to the facts and not read here must not go unnoticed.
func TestEveryFactIsRead(t *testing.T) {
	var want policy.Facts
	fill(t, reflect.ValueOf(&want).Elem())
	for name, f := range map[string]policy.Facts{"all": want, "none": {}} {
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		var got policy.Facts
		if !readFacts(b, &got) {
			t.Fatalf("%s cannot be read: %s", name, b)
		}
		if d := cmp.Diff(f, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

func TestOddFactsAreRefused(t *testing.T) {
	for _, s := range []string{
		``, `[]`, `{"now":-1}`, `{"now":"1"}`, `{"now":1.5}`, `{"Now":1}`, `{"new":1}`, `{"device":{"opted_out":1}}`, `{"device":{"components":{}}}`,
		`{"device":{"components":[{"name":1}]}}`, `{"device":{"components":[{"security_counter":-1}]}}`, `{"campaign":{"plan":"sha256:00"}}`,
		`{"update":{"member":null}}`, `{"now":99999999999999999999}`, `{"device":[]}`, `{"stage":{"limit":1e3}}`,
	} {
		var f policy.Facts
		if readFacts([]byte(s), &f) {
			t.Errorf("%s is read", s)
		}
	}
}
