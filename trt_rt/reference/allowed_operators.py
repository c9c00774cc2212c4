"""The operators of PyTorch that a plan may call.

Anyone can write a plan, so the list holds operators that inference networks use and whose kernels check what
they are given, not everything that PyTorch has. Left out are operators that change their arguments, that read
or print, that trust indices, offsets, strides or packed layouts, whose running time is not bounded by the
sizes of their operands, and those for training. An operator that is missing here and that networks need is
added to its family; ``tests/reference/test_operator_fuzzing.py`` then calls it with hostile arguments.

An entry is the operator's name followed by its overloads; no overload stands for ``default``.
"""

from __future__ import annotations

__all__ = ["ALLOWED_OPERATORS"]

_FAMILIES = {
    "arithmetic": """
        abs absolute neg negative positive sign sgn signbit reciprocal add.Tensor add.Scalar sub.Tensor
        sub.Scalar subtract.Tensor subtract.Scalar rsub.Tensor rsub.Scalar mul.Tensor mul.Scalar
        multiply.Tensor multiply.Scalar div.Tensor div.Scalar div.Tensor_mode div.Scalar_mode divide.Tensor
        divide.Scalar divide.Tensor_mode divide.Scalar_mode true_divide.Tensor true_divide.Scalar floor_divide
        floor_divide.Scalar remainder.Tensor remainder.Scalar remainder.Scalar_Tensor fmod.Tensor fmod.Scalar
        addcmul addcdiv lerp.Tensor lerp.Scalar maximum minimum fmax fmin max.other min.other clamp
        clamp.Tensor clamp_min clamp_min.Tensor clamp_max clamp_max.Tensor clip clip.Tensor ceil floor round
        round.decimals trunc fix frac nan_to_num copysign.Tensor copysign.Scalar
    """,
    "powers, exponentials and logarithms": """
        pow.Tensor_Tensor pow.Tensor_Scalar pow.Scalar float_power.Tensor_Tensor float_power.Tensor_Scalar
        float_power.Scalar square sqrt rsqrt exp exp2 expm1 log log2 log10 log1p logaddexp logaddexp2
        xlogy.Tensor xlogy.Scalar_Self xlogy.Scalar_Other logit special_entr special_log_ndtr ldexp.Tensor
    """,
    "trigonometric and special functions": """
        sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh atan2 arcsin arccos arctan arctan2
        arcsinh arccosh arctanh hypot deg2rad rad2deg sinc erf erfc erfinv special_erf special_erfc
        special_expit special_expm1 special_log1p special_ndtr lgamma digamma heaviside
    """,
    "comparison and logic": """
        eq.Tensor eq.Scalar ne.Tensor ne.Scalar lt.Tensor lt.Scalar le.Tensor le.Scalar gt.Tensor gt.Scalar
        ge.Tensor ge.Scalar not_equal.Tensor not_equal.Scalar less.Tensor less.Scalar less_equal.Tensor
        less_equal.Scalar greater.Tensor greater.Scalar greater_equal.Tensor greater_equal.Scalar
        isclose isfinite isinf isnan isneginf isposinf isreal isin.Tensor_Tensor isin.Tensor_Scalar
        isin.Scalar_Tensor equal logical_and logical_or logical_not logical_xor
        bitwise_and.Tensor bitwise_and.Scalar bitwise_and.Scalar_Tensor bitwise_or.Tensor bitwise_or.Scalar
        bitwise_or.Scalar_Tensor bitwise_xor.Tensor bitwise_xor.Scalar bitwise_xor.Scalar_Tensor bitwise_not
        bitwise_left_shift.Tensor bitwise_left_shift.Tensor_Scalar bitwise_left_shift.Scalar_Tensor
        bitwise_right_shift.Tensor bitwise_right_shift.Tensor_Scalar bitwise_right_shift.Scalar_Tensor
        __and__.Tensor __and__.Scalar __or__.Tensor __or__.Scalar __xor__.Tensor __xor__.Scalar
        __lshift__.Tensor __lshift__.Scalar __rshift__.Tensor __rshift__.Scalar
        where where.self where.Scalar where.ScalarSelf where.ScalarOther
        masked_fill.Tensor masked_fill.Scalar
    """,
    "activations": """
        relu relu6 leaky_relu prelu _prelu_kernel elu selu celu gelu glu silu mish hardsigmoid hardswish
        hardtanh hardshrink softshrink softplus sigmoid log_sigmoid log_sigmoid_forward threshold rrelu
        softmax.int log_softmax.int special_softmax special_log_softmax _softmax _log_softmax _safe_softmax
    """,
    "reductions": """
        sum sum.dim_IntList nansum mean mean.dim nanmean prod prod.dim_int std std.dim std.correction
        var var.dim var.correction std_mean std_mean.dim std_mean.correction var_mean var_mean.dim
        var_mean.correction max max.dim min min.dim amax amin aminmax argmax argmin all all.dim all.dims
        any any.dim any.dims logsumexp special_logsumexp median median.dim nanmedian nanmedian.dim mode
        count_nonzero count_nonzero.dim_IntList quantile quantile.scalar nanquantile nanquantile.scalar
        norm.Scalar norm.ScalarOpt_dim norm.ScalarOpt_dim_dtype norm.ScalarOpt_dtype frobenius_norm.dim
        linalg_norm linalg_vector_norm linalg_matrix_norm dist sum_to_size trace
    """,
    "cumulative operators, sorting and searching": """
        cumsum cumprod cummax cummin logcumsumexp diff sort sort.stable msort argsort argsort.stable topk
        kthvalue searchsorted.Tensor searchsorted.Scalar bucketize.Tensor bucketize.Scalar
        unique_consecutive unique_dim unique_dim_consecutive _unique _unique2
        nonzero nonzero_numpy nonzero_static argwhere histc
    """,
    "products of matrices": """
        matmul linalg_matmul mm bmm mv dot vdot inner outer ger addmm addmv addbmm baddbmm addr
        _addmm_activation linear bilinear einsum tensordot kron  linalg_vecdot
        _trilinear linalg_cross cross _grouped_mm
    """,
    "linear algebra": """
        linalg_inv linalg_inv_ex inverse linalg_det det linalg_slogdet linalg_solve linalg_solve_ex
        linalg_cholesky linalg_cholesky_ex  linalg_solve_triangular _linalg_det _linalg_slogdet
        _linalg_solve_ex
    """,
    "distances": """
        cdist _cdist_forward pdist _pdist_forward pairwise_distance cosine_similarity
    """,
    "attention": """
        scaled_dot_product_attention _scaled_dot_product_attention_math
        _scaled_dot_product_flash_attention_for_cpu
        _native_multi_head_attention _transformer_encoder_layer_fwd
    """,
    "recurrent networks": """
        lstm.input gru.input rnn_tanh.input rnn_relu.input lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell
    """,
    "normalization": """
        batch_norm instance_norm layer_norm group_norm rms_norm native_layer_norm native_group_norm
        _fused_rms_norm _native_batch_norm_legit_no_training _weight_norm _weight_norm_interface
    """,
    "convolutions": """
        conv1d conv2d conv3d conv1d.padding conv2d.padding conv3d.padding conv_transpose1d
        conv_transpose2d.input conv_transpose3d.input convolution conv_tbc im2col col2im
    """,
    "pooling": """
        avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d max_pool1d_with_indices
        max_pool2d_with_indices max_pool3d_with_indices adaptive_avg_pool1d adaptive_avg_pool2d
        adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool1d
        adaptive_max_pool2d adaptive_max_pool3d max_unpool2d max_unpool3d
    """,
    "padding": """
        pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d
        replication_pad2d replication_pad3d _pad_circular _pad_enum
    """,
    "interpolation and sampling of images": """
        upsample_nearest1d upsample_nearest1d.vec upsample_nearest2d upsample_nearest2d.vec
        upsample_nearest3d upsample_nearest3d.vec _upsample_nearest_exact1d _upsample_nearest_exact1d.vec
        _upsample_nearest_exact2d _upsample_nearest_exact2d.vec _upsample_nearest_exact3d
        _upsample_nearest_exact3d.vec upsample_linear1d upsample_linear1d.vec upsample_bilinear2d
        upsample_bilinear2d.vec upsample_trilinear3d upsample_trilinear3d.vec upsample_bicubic2d
        upsample_bicubic2d.vec _upsample_bilinear2d_aa _upsample_bilinear2d_aa.vec _upsample_bicubic2d_aa
        _upsample_bicubic2d_aa.vec grid_sampler grid_sampler_2d grid_sampler_3d affine_grid_generator
        pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle
    """,
    "indexing": """
        index.Tensor _unsafe_index.Tensor _unsafe_masked_index index_select index_add index_copy
        index_fill.int_Scalar index_fill.int_Tensor index_put _unsafe_index_put index_reduce gather
        scatter.src scatter.value scatter.reduce scatter.value_reduce scatter_add scatter_reduce.two take
        take_along_dim put masked_select masked_scatter embedding one_hot select.int select_copy.int
        slice.Tensor slice_copy.Tensor narrow narrow_copy narrow.Tensor select_scatter slice_scatter
        diagonal_scatter
    """,
    "shapes": """
        view _unsafe_view view_copy reshape _reshape_copy reshape_as view_as flatten.using_ints unflatten.int
        ravel squeeze squeeze.dim squeeze.dims squeeze_copy squeeze_copy.dim squeeze_copy.dims unsqueeze
        unsqueeze_copy expand expand_as expand_copy broadcast_to broadcast_tensors transpose.int
        transpose_copy.int permute permute_copy t t_copy mT mH    movedim.int
        movedim.intlist moveaxis.int moveaxis.intlist swapaxes swapdims atleast_1d atleast_2d atleast_3d
        atleast_1d.Sequence atleast_2d.Sequence atleast_3d.Sequence
    """,
    "joining, splitting and repeating": """
        cat concat concatenate stack hstack vstack dstack row_stack column_stack block_diag split.Tensor
        split.sizes split_with_sizes split_copy.Tensor split_with_sizes_copy unsafe_split.Tensor
        unsafe_split_with_sizes chunk unsafe_chunk tensor_split.sections tensor_split.indices hsplit.int
        hsplit.array vsplit.int vsplit.array dsplit.int dsplit.array unbind.int unbind_copy.int
        repeat tile repeat_interleave.self_int repeat_interleave.self_Tensor repeat_interleave.Tensor
        meshgrid meshgrid.indexing cartesian_prod
    """,
    "order of elements, diagonals and triangles": """
        flip fliplr flipud roll rot90 unfold unfold_copy diag diag_embed diagflat diagonal diagonal_copy
        linalg_diagonal tril triu
    """,
    "types and copies": """
        to.dtype to.dtype_layout to.device to.other _to_copy type_as copy clone contiguous detach detach_copy
        alias alias_copy lift lift_fresh lift_fresh_copy view.dtype view_copy.dtype
        fake_quantize_per_tensor_affine fake_quantize_per_tensor_affine.tensor_qparams
        fake_quantize_per_channel_affine fake_quantize_per_tensor_affine_cachemask
        fake_quantize_per_channel_affine_cachemask
    """,
    "new tensors": """
        zeros zeros_like ones ones_like full full_like empty.memory_format empty_like
        new_empty new_zeros new_ones new_full fill.Scalar fill.Tensor zero scalar_tensor arange arange.start
        arange.start_step linspace eye eye.m tril_indices triu_indices hann_window hann_window.periodic
        hamming_window hamming_window.periodic
    """,
    "random numbers": """
        rand rand_like randn randn_like randint randint.low randint_like randint_like.low_dtype randperm
        bernoulli bernoulli.p multinomial dropout native_dropout feature_dropout alpha_dropout
        normal.Tensor_Tensor normal.Tensor_float normal.float_Tensor normal_functional uniform
    """,
    "complex numbers and Fourier transforms": """
        real imag view_as_real view_as_real_copy view_as_complex view_as_complex_copy complex polar angle
        conj _conj conj_physical resolve_conj resolve_neg
        fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn
        fft_rfftn fft_irfftn fft_hfft fft_ihfft fft_fftshift fft_ifftshift fft_fftfreq fft_rfftfreq
        _fft_r2c _fft_c2r _fft_c2c stft stft.center istft
    """,
    "sizes, numbers and checks": """
        item _local_scalar_dense sym_size.int sym_numel sym_stride.int sym_storage_offset _shape_as_tensor
        _assert_async _assert_async.msg _assert_scalar sym_constrain_range sym_constrain_range_for_size
    """,
}


def _names() -> frozenset[str]:
    entries = [entry for family in _FAMILIES.values() for entry in family.split()]
    return frozenset(f"aten.{entry}" if "." in entry else f"aten.{entry}.default" for entry in entries)


ALLOWED_OPERATORS = _names()
"""Full names, such as ``aten.add.Tensor``."""
