//go:build (linux || darwin) && (amd64 || arm64)

package token

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/writ-project/writ/internal/fw"
)

// ulong is CK_ULONG: the C type unsigned long, 64 bits on the systems of the
// build tag. Structures are not packed there (PKCS #11 v2.40, section 2.1).
type ulong = uint64

// Places in CK_FUNCTION_LIST, counted in pointers; place 0 holds the version.
const (
	fnInitialize        = 1
	fnFinalize          = 2
	fnGetSlotList       = 5
	fnGetTokenInfo      = 7
	fnOpenSession       = 13
	fnCloseSession      = 14
	fnLogin             = 19
	fnGetAttributeValue = 25
	fnFindObjectsInit   = 27
	fnFindObjects       = 28
	fnFindObjectsFinal  = 29
	fnSignInit          = 43
	fnSign              = 44
	functionListLength  = 69
)

// Values of PKCS #11 v2.40 and, for Edwards curves, v3.0.
const (
	flagOSLocking     = 0x2 // CKF_OS_LOCKING_OK
	flagSerial        = 0x4 // CKF_SERIAL_SESSION; read-only without CKF_RW_SESSION
	userUser          = 1   // CKU_USER
	classCertificate  = 1
	classPublicKey    = 2
	classPrivateKey   = 3
	unavailable       = ^ulong(0) // CK_UNAVAILABLE_INFORMATION
	attrClass         = 0x000
	attrLabel         = 0x003
	attrValue         = 0x011
	attrKeyType       = 0x100
	attrID            = 0x102
	attrSensitive     = 0x103
	attrSign          = 0x108
	attrModulus       = 0x120
	attrExponent      = 0x122
	attrExtractable   = 0x162
	attrAlwaysAuth    = 0x202
	attrECParams      = 0x180
	attrECPoint       = 0x181
	keyRSA            = 0x00
	keyEC             = 0x03
	keyECEdwards      = 0x40
	mechRSAPKCS       = 0x0001
	mechRSAPSS        = 0x000d
	mechECDSA         = 0x1041
	mechEDDSA         = 0x1057
	maxAttribute      = 64 << 10 // bytes of an attribute's value
	maxSlots          = 256
	maxSignatureBytes = 1024 // RSA-8192
)

// rv is CK_RV.
type rv ulong

// Return values that mean something to us.
const (
	rvOK                    rv = 0x000
	rvFunctionFailed        rv = 0x006
	rvAttributeSensitive    rv = 0x011
	rvAttributeTypeInvalid  rv = 0x012
	rvDeviceError           rv = 0x030
	rvDeviceRemoved         rv = 0x032
	rvKeyHandleInvalid      rv = 0x060
	rvMechanismInvalid      rv = 0x070
	rvMechanismParamInvalid rv = 0x071
	rvObjectHandleInvalid   rv = 0x082
	rvPINIncorrect          rv = 0x0a0
	rvPINInvalid            rv = 0x0a1
	rvPINLenRange           rv = 0x0a2
	rvPINExpired            rv = 0x0a3
	rvPINLocked             rv = 0x0a4
	rvSessionClosed         rv = 0x0b0
	rvSessionCount          rv = 0x0b1
	rvSessionHandleInvalid  rv = 0x0b3
	rvTokenNotPresent       rv = 0x0e0
	rvTokenNotRecognized    rv = 0x0e1
	rvUserAlreadyLoggedIn   rv = 0x100
	rvUserNotLoggedIn       rv = 0x101
	rvUserPINNotInitialized rv = 0x102
	rvAlreadyInitialized    rv = 0x191
)

// returnError is a return value as an error.
type returnError struct{ rv rv }

func (e returnError) Error() string { return fmt.Sprintf("PKCS #11 return value 0x%03x", uint64(e.rv)) }

func (r rv) err() error { return returnError{r} }

// library is a loaded PKCS #11 module.
type library struct {
	functions [functionListLength]uintptr
}

// attribute is CK_ATTRIBUTE.
type attribute struct {
	kind   ulong
	value  unsafe.Pointer
	length ulong
}

// mechanism is CK_MECHANISM.
type mechanism struct {
	kind      ulong
	parameter unsafe.Pointer
	length    ulong
}

// pssParams is CK_RSA_PKCS_PSS_PARAMS.
type pssParams struct {
	hash, mgf, salt ulong
}

// tokenInfo is CK_TOKEN_INFO.
type tokenInfo struct {
	label, manufacturer [32]byte
	model, serial       [16]byte
	flags               ulong
	maxSessions         ulong
	counts              [9]ulong
	versions            [4]byte
	clock               [16]byte
}

// load opens the shared library at path and initializes it.
func load(path string) (*library, error) {
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fw.Wrap(fw.Unavailable, err, "cannot load the PKCS#11 module %s: check the path, and that it is built for this machine", path)
	}
	get, err := purego.Dlsym(handle, "C_GetFunctionList")
	if err != nil {
		return nil, fw.Wrap(fw.Invalid, err, "%s is no PKCS#11 module: it has no C_GetFunctionList", path)
	}
	// The library answers with the address of its own table, memory that the
	// garbage collector does not know and does not move.
	var list *[functionListLength]uintptr
	if r := call(get, uintptr(unsafe.Pointer(&list))); r != rvOK || list == nil {
		return nil, fw.Wrap(fw.Unavailable, r.err(), "%s gave no function list", path)
	}
	l := &library{functions: *list}
	args := [6]uintptr{4: flagOSLocking} // CK_C_INITIALIZE_ARGS
	if r := l.call(fnInitialize, uintptr(unsafe.Pointer(&args))); r != rvOK && r != rvAlreadyInitialized {
		return nil, fw.Wrap(fw.Unavailable, r.err(), "the PKCS#11 module %s cannot be initialized: check its configuration", path)
	}
	return l, nil
}

// call is C. Pointers go in as uintptr in the argument list itself, so that
// what they point to is kept (purego marks SyscallN go:uintptrescapes; this
// wrapper must too).
//
//go:uintptrescapes
func call(fn uintptr, args ...uintptr) rv {
	r, _, _ := purego.SyscallN(fn, args...)
	return rv(r)
}

//go:uintptrescapes
func (l *library) call(fn int, args ...uintptr) rv {
	r, _, _ := purego.SyscallN(l.functions[fn], args...)
	return rv(r)
}

func (l *library) finalize() { _ = l.call(fnFinalize, 0) } // the process ends

// slots returns the slots that hold a token.
func (l *library) slots() ([]ulong, error) {
	var n ulong
	if r := l.call(fnGetSlotList, 1, 0, uintptr(unsafe.Pointer(&n))); r != rvOK {
		return nil, r.err()
	}
	if n == 0 {
		return nil, nil
	}
	list := make([]ulong, min(n, maxSlots))
	n = ulong(len(list))
	if r := l.call(fnGetSlotList, 1, uintptr(unsafe.Pointer(&list[0])), uintptr(unsafe.Pointer(&n))); r != rvOK {
		return nil, r.err()
	}
	return list[:min(n, ulong(len(list)))], nil
}

func (l *library) token(slot ulong) (*tokenInfo, error) {
	info := new(tokenInfo)
	if r := l.call(fnGetTokenInfo, uintptr(slot), uintptr(unsafe.Pointer(info))); r != rvOK {
		return nil, r.err()
	}
	return info, nil
}

func (l *library) openSession(slot ulong) (ulong, rv) {
	var s ulong
	r := l.call(fnOpenSession, uintptr(slot), flagSerial, 0, 0, uintptr(unsafe.Pointer(&s)))
	return s, r
}

func (l *library) closeSession(s ulong) { _ = l.call(fnCloseSession, uintptr(s)) } // nothing to do about it

func (l *library) login(session ulong, pin []byte) rv {
	if len(pin) == 0 {
		// CKF_PROTECTED_AUTHENTICATION_PATH: the token has its own key pad.
		return l.call(fnLogin, uintptr(session), userUser, 0, 0)
	}
	return l.call(fnLogin, uintptr(session), userUser, uintptr(unsafe.Pointer(&pin[0])), uintptr(len(pin)))
}

// match is one condition of a search.
type match struct {
	kind  ulong
	value []byte
}

func matchUlong(kind, v ulong) match {
	return match{kind, unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v))}
}

// find returns up to limit objects that meet every condition.
func (l *library) find(session ulong, limit int, conditions ...match) ([]ulong, rv) {
	template := make([]attribute, len(conditions))
	for i, m := range conditions {
		template[i] = attribute{kind: m.kind, length: ulong(len(m.value))}
		if len(m.value) > 0 {
			template[i].value = unsafe.Pointer(&m.value[0])
		}
	}
	r := l.call(fnFindObjectsInit, uintptr(session), uintptr(unsafe.Pointer(&template[0])), uintptr(len(template)))
	runtime.KeepAlive(conditions)
	if r != rvOK {
		return nil, r
	}
	found := make([]ulong, limit)
	var n ulong
	r = l.call(fnFindObjects, uintptr(session), uintptr(unsafe.Pointer(&found[0])), uintptr(limit), uintptr(unsafe.Pointer(&n)))
	if f := l.call(fnFindObjectsFinal, uintptr(session)); r == rvOK {
		r = f
	}
	if r != rvOK {
		return nil, r
	}
	return found[:min(n, ulong(limit))], rvOK
}

// read returns an attribute's value; nil if the object has none or hides it.
func (l *library) read(session, object, kind ulong) ([]byte, rv) {
	a := &attribute{kind: kind}
	r := l.call(fnGetAttributeValue, uintptr(session), uintptr(object), uintptr(unsafe.Pointer(a)), 1)
	switch {
	case r == rvAttributeTypeInvalid || r == rvAttributeSensitive:
		return nil, rvOK
	case r != rvOK:
		return nil, r
	case a.length == 0 || a.length == unavailable:
		return nil, rvOK
	case a.length > maxAttribute:
		return nil, rvFunctionFailed
	}
	value := make([]byte, a.length)
	a.value = unsafe.Pointer(&value[0])
	r = l.call(fnGetAttributeValue, uintptr(session), uintptr(object), uintptr(unsafe.Pointer(a)), 1)
	if r != rvOK || a.length > ulong(len(value)) {
		return nil, max(r, rvFunctionFailed)
	}
	return value[:a.length], rvOK
}

// sign runs C_SignInit and C_Sign.
func (l *library) sign(session, key, kind ulong, pss *pssParams, data []byte) ([]byte, rv) {
	m := &mechanism{kind: kind}
	if pss != nil {
		m.parameter, m.length = unsafe.Pointer(pss), ulong(unsafe.Sizeof(*pss))
	}
	r := l.call(fnSignInit, uintptr(session), uintptr(unsafe.Pointer(m)), uintptr(key))
	runtime.KeepAlive(pss)
	if r != rvOK {
		return nil, r
	}
	if len(data) == 0 {
		data = make([]byte, 1)[:0:1] // a pointer that is not NULL
	}
	sig := make([]byte, maxSignatureBytes)
	n := ulong(len(sig))
	r = l.call(fnSign, uintptr(session), uintptr(unsafe.Pointer(unsafe.SliceData(data))), uintptr(len(data)),
		uintptr(unsafe.Pointer(&sig[0])), uintptr(unsafe.Pointer(&n)))
	if r != rvOK {
		return nil, r
	}
	return sig[:min(n, ulong(len(sig)))], rvOK
}
