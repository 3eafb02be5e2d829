"""A kernel's regions from its dump: small ones written by hand, in the form that libtpu's have."""

import pytest

from cptjax.benchmarks.bundles import KERNEL, LOOP, SKIPPED, read_bundles, read_kernels
from cptjax.errors import CptjaxError

# A grid loop (0x2 to 0xd) with a first part that may be skipped, a loop with products, and a last part that may be skipped.
# Behind the branch at 0x3 stands a bundle that is executed all the same (0x4). At 0x1 a core without work leaves.
DUMP = """
= control target key start
LB: loop body
= control target key end

     0   :  { %s1 = smov [#allocation6]  ;;  %s2 = inlined_call_operand.vmem [shape: s8[1,4,4], index: 0] /* operand 0
hlo: attention_forward.1
 */ }
   0x1   :  { %25 = sbr.rel (%p1) target = $region4 } /* Start region 0 */
   0x2 LB: > { %s3 = sadd.s32 1, %s3 } /* Start region 10 :: Start region 11 */
   0x3   : > { %906 = sbr.rel (%p2) target = $region12 }
   0x4   : > { %s4 = smov 0 } /* End region 11 */
   0x5   : > { %v1 = vst [vmem:[%s1] sm:$0xff] %v0  ;;  %v2 = vst [vmem:[%s2]] %v0 } /* Start region 20 */
   0x6   : > { %v3 = vst [vmem:[%s3]] %v0 } /* End region 20 */
   0x7 PF: > { %s5 = sld [smem:[#allocation7]] } /* Start/End empty region 12 :: Start region 13 */
   0x8 LB: >> { %1 = vmatmul.bf16.gmra.mxu0 %v1  ;;  %2 = vmatmul.bf16.gmra.mxu1 %v2 } /* Start region 14 */
   0x9   : >> { %3 = vmatmul.mubr.f32.gmra.mxu0 %v1  ;;  %4 = vmatpush.bf16.xpose.msra.mxu0 %v2 }
   0xa   : >> { %907 = sbr.rel (!%p3) target = $region14 } /* End region 14 */
   0xb   : > { %908 = sbr.rel (%p4) target = $region15 }
   0xc   : > { %v4 = vld [vmem:[%s1]] }
   0xd PF: > { %909 = sbr.rel (!%p5) target = $region10 } /* Start/End empty region 15 */
   0xe   :  { %34183 = vsyncpa [#allocation13], 1 } /* End region 0 */
   0xf PF:  {} /* exit bundle: %attention_forward.1 = custom-call(%copy-done.9) */
"""


def test_regions_nest_as_branches_lead():
    kernel = read_bundles(DUMP)
    found = [(region.kind, region.start, region.stop) for region in kernel.walk()]
    assert found == [
        (KERNEL, 0, 16),
        (SKIPPED, 2, 16),  # by a core without work: to the very end, which begins no region
        (LOOP, 2, 14),
        (SKIPPED, 5, 7),  # without the bundle behind the branch
        (LOOP, 8, 11),
        (SKIPPED, 12, 13),
    ]


def test_bundles_and_products_belong_to_the_innermost_region():
    kernel = read_bundles(DUMP)
    grid = kernel.inside[0].inside[0]
    assert (grid.bundles, grid.own, grid.own_products) == (12, 6, 0)
    assert [(region.own, region.own_products) for region in grid.inside] == [(2, 0), (3, 3), (1, 0)]
    assert kernel.products == 3
    assert sum(region.own for region in kernel.walk()) == kernel.bundles == 16


def test_the_outline_is_for_people():
    assert read_bundles(DUMP).outline().splitlines()[4] == "      loop 0x8: 3 of 3 bundles, 3 products"


def test_alternatives_do_not_overlap():
    """if/else: the branch at the end of the first leads over the second, whose beginning is where the first is left for."""
    text = """
     0   :  { %1 = sbr.rel (%p1) target = $region2 }
   0x1   :  { %v1 = vld [vmem:[%s1]] }
   0x2   :  { %2 = sbr.rel target = $region3 }
   0x3 PF:  { %v1 = vld [vmem:[%s1]] } /* Start region 2 */
   0x4   :  { %v1 = vld [vmem:[%s1]] } /* End region 2 */
   0x5 PF:  { %s1 = smov 0 } /* Start/End empty region 3 :: exit */ /* exit bundle: %x */
"""
    found = [(region.kind, region.start, region.stop) for region in read_bundles(text).walk()]
    assert found == [(KERNEL, 0, 6), (SKIPPED, 1, 3), (SKIPPED, 3, 5)]


@pytest.mark.parametrize("text", ["", "Schedule analysis:\n", DUMP[: DUMP.index("   0xf")]])
def test_what_is_cut_off_is_refused(text):
    with pytest.raises(CptjaxError, match="no whole dump"):
        read_bundles(text)


def test_kernels_are_found_by_name_in_a_folder_of_dumps(tmp_path):
    (tmp_path / "1795323213795-attention_forward.1-03-final_bundles.txt").write_text(DUMP)
    (tmp_path / "1795323213795-attention_forward.1-02-schedule-analysis_final_bundles.txt").write_text(
        "Schedule analysis:"
    )
    (tmp_path / "1795323213652-TLP-03-final_bundles.txt").write_text("cut off")
    assert list(read_kernels(tmp_path, "attention_forward")) == ["attention_forward.1"]
    with pytest.raises(CptjaxError, match="no final LLO dump of a kernel named 'splash'"):
        read_kernels(tmp_path, "splash")
    with pytest.raises(CptjaxError, match="TLP-03-final_bundles.txt: this is no whole dump"):
        read_kernels(tmp_path, "TLP")
