;; Steers by class of service: what is marked EF (voice), CS6 or CS7 (control) goes to ring 0, all else by the built-in
;; policy. The DSCP of the innermost IP header is left as the tag's mark and as the annotation's first byte.
;;
;;     flowyard run gen:mix --steer wasm:dscp.wat
(module
  (memory (export "memory") 1)

  ;; The version of the interface, and what is looked at: some headers, one byte of the annotation.
  (func (export "abi") (result i32) (i32.const 1))
  (func (export "packet_bytes") (result i32) (i32.const 128))
  (func (export "annotation_bytes") (result i32) (i32.const 1))

  ;; The DSCP of a packet, or -1 if it has no IP header among its first bytes.
  (func $dscp (param $packet i32) (result i32)
    (local $offset i32)
    (local $header i32)
    ;; tag.inner_l3; 0xffff, where there is none, is beyond the bytes as well.
    (local.set $offset (i32.load16_u offset=10 (local.get $packet)))
    (if (i32.gt_u (i32.add (local.get $offset) (i32.const 2)) (i32.load16_u offset=88 (local.get $packet)))
      (then (return (i32.const -1))))
    (local.set $header (i32.add (i32.load offset=80 (local.get $packet)) (local.get $offset)))
    ;; tag.kind, bit 3: IPv6, whose class lies across two bytes.
    (if (result i32) (i32.and (i32.load8_u offset=15 (local.get $packet)) (i32.const 8))
      (then
        (i32.or
          (i32.shl (i32.and (i32.load8_u (local.get $header)) (i32.const 15)) (i32.const 2))
          (i32.shr_u (i32.load8_u offset=1 (local.get $header)) (i32.const 6))))
      (else
        (i32.shr_u (i32.load8_u offset=1 (local.get $header)) (i32.const 2)))))

  (func $judge (param $packet i32)
    (local $dscp i32)
    (local.set $dscp (call $dscp (local.get $packet)))
    (if (i32.lt_s (local.get $dscp) (i32.const 0)) (then (return)))
    ;; tag.user, and the annotation if the yard has any.
    (i64.store offset=24 (local.get $packet) (i64.extend_i32_u (local.get $dscp)))
    (if (i32.load16_u offset=90 (local.get $packet))
      (then (i32.store8 (i32.load offset=84 (local.get $packet)) (local.get $dscp))))
    (if (i32.load8_u offset=64 (local.get $packet)) (then (return))) ;; an earlier function has spoken
    (if (i32.or
          (i32.eq (local.get $dscp) (i32.const 46))
          (i32.or (i32.eq (local.get $dscp) (i32.const 48)) (i32.eq (local.get $dscp) (i32.const 56))))
      ;; verdict.kind 2 and ring 0, which stands there.
      (then (i32.store8 offset=64 (local.get $packet) (i32.const 2)))))

  (func (export "steer") (param $packet i32) (param $count i32) (result i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $packet) (i32.mul (local.get $count) (i32.const 96))))
    (loop $each
      (call $judge (local.get $packet))
      (local.set $packet (i32.add (local.get $packet) (i32.const 96)))
      (br_if $each (i32.lt_u (local.get $packet) (local.get $end))))
    (i32.const 0)))
