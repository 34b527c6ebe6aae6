// Here so that the compiler takes the functions without a body in fork.go.
